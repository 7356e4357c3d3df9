"""What recipes share: options, the frame of a run, images, figures."""
