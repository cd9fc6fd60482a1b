"""Runs migrations on the connection that `Catalog` hands over, in its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
