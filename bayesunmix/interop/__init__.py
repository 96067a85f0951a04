"""A place in the tools people use: HyperSpy, sidpy, scikit-learn; each is imported when it is first needed."""
