"""x"""


def attach(app, service, settings):
    pass
