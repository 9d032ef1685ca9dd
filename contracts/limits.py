"""What one request for samples may ask for, agreed on by service and client."""

MAXIMUM_COUNT = 1024
MAXIMUM_SEED = 2**63 - 1
# The index of every image stays below 2**31: DICOM numbers instances in 32 bits with a sign.
MAXIMUM_START = 2_000_000_000
