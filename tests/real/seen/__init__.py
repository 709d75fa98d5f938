"""What operators see of a running sidekey."""
