"""The story: each flow body reads as the pipeline it is."""
