"""The paper's tables and figures, each as a small module over the pipeline's artifacts."""
