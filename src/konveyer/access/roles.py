"""Who may do what: one table."""

from enum import StrEnum


class Role(StrEnum):
    DATA_SCIENTIST = "data-scientist"
    DATA_ENGINEER = "data-engineer"
    ML_ENGINEER = "ml-engineer"
    QA = "qa"
    ANALYST = "analyst"
    PRODUCER = "producer"
    ADMINISTRATOR = "administrator"


class Permission(StrEnum):
    READ = "read"
    DEFINE_FEATURES = "define features"
    RUN_ETL = "run ETL"
    PUSH_ROWS = "push rows"
    FORGET_ENTITIES = "forget entities"
    BUILD_TRAINING_SETS = "build training sets"
    TRAIN = "train models"
    SUBMIT_RELEASE = "submit releases"
    REVIEW_RELEASE = "review releases"
    APPROVE_RELEASE = "approve releases"
    WAIVE_GATE = "waive gates"
    OPERATE_RELEASE = "promote and roll back releases"
    MANAGE_KEYS = "manage API keys"
    MANAGE_PEOPLE = "manage people"


_DEVELOP = {Permission.BUILD_TRAINING_SETS, Permission.TRAIN, Permission.SUBMIT_RELEASE}

GRANTS: dict[Role, frozenset[Permission]] = {
    Role.DATA_SCIENTIST: frozenset({Permission.READ, Permission.DEFINE_FEATURES, *_DEVELOP}),
    Role.DATA_ENGINEER: frozenset(
        {
            Permission.READ,
            Permission.DEFINE_FEATURES,
            Permission.RUN_ETL,
            Permission.PUSH_ROWS,
            Permission.FORGET_ENTITIES,
        }
    ),
    Role.ML_ENGINEER: frozenset(
        {
            Permission.READ,
            Permission.RUN_ETL,
            Permission.REVIEW_RELEASE,
            Permission.APPROVE_RELEASE,
            Permission.OPERATE_RELEASE,
            Permission.MANAGE_KEYS,
            *_DEVELOP,
        }
    ),
    Role.QA: frozenset(
        {
            Permission.READ,
            Permission.REVIEW_RELEASE,
            Permission.APPROVE_RELEASE,
            Permission.WAIVE_GATE,
        }
    ),
    Role.ANALYST: frozenset({Permission.READ}),
    # A system that sends rows, and can do nothing else.
    Role.PRODUCER: frozenset({Permission.PUSH_ROWS}),
    Role.ADMINISTRATOR: frozenset(Permission),
}
