"""Pages that are served: who may ask, what goes with each answer, news as they come."""
