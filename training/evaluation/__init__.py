"""One report on what a model reaches, with the controls that a claim about it has to beat."""
