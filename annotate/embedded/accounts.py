"""The owner's account in Argilla's database."""

from argilla_server.contexts import accounts
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import UserRole
from argilla_server.models import User

from annotate.embedded.home import Secrets


async def ensure_owner(secrets: Secrets) -> None:
    """Have the owner log in with these secrets, creating the account at the first start."""
    async with AsyncSessionLocal() as db:
        owner = await User.get_by(db, username=secrets.username)
        if owner is None:
            await User.create(
                db,
                first_name="Owner",
                username=secrets.username,
                role=UserRole.owner,
                api_key=secrets.api_key,
                password_hash=accounts.hash_password(secrets.password),
            )
        elif owner.api_key != secrets.api_key:  # credentials.json was removed and made anew
            await owner.update(
                db,
                api_key=secrets.api_key,
                password_hash=accounts.hash_password(secrets.password),
            )
