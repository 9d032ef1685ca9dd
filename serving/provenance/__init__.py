"""Where an image comes from: claims, where they lie in files, and what is known of an upload."""
