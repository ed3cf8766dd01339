"""What is where in a picture: detectors behind one protocol."""
