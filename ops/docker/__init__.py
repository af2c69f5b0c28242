"""Files of the images (docs/DEPLOY.md)."""
