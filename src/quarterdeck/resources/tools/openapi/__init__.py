"""Operations of HTTP APIs as tools, described by OpenAPI documents."""
