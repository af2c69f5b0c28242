"""From a window of the log to a new policy version: tensors, loss, step, checkpoint."""
