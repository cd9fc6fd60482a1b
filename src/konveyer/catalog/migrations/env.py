"""Runs migrations on the connection that `Catalog` hands over."""

from alembic import context

with context.begin_transaction():
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=context.config.attributes.get("metadata"),
        render_as_batch=True,
        compare_type=True,
    )
    context.run_migrations()
