__all__: tuple[()]
