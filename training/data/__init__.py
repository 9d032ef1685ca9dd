"""From images in folders to arrays on disk.

A source (`skimage_bundled`, `folder`, `masked_folder`, `medmnist`, `dicom_folder`) lists `items`; `preparation` decodes
them, cuts `tiles`, leaves out what cannot be used, `split`s by patient or region; `prepared` is the form on disk.
"""
