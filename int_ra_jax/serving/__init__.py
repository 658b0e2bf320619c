"""L4: a trained run and its gallery as a service: by HTTP, for language models, as a page."""
