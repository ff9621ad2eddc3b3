"""Images made by programmes alone: what the built-in network is pretrained on, and judged by."""
