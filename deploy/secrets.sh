#!/bin/sh
# Write the .env that compose.yaml reads: random secrets, for the owner of the file only.
# An .env that is there is kept: the stores know its passwords.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo "error: .env is there already, and PostgreSQL knows its password. Keep it" >&2
  exit 1
fi
umask 077
for name in POSTGRES_PASSWORD ELASTIC_PASSWORD REDIS_PASSWORD ARGILLA_AUTH_SECRET_KEY; do
  # Hexadecimal: the passwords stand in addresses.
  printf '%s=%s\n' "$name" "$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')"
done > .env.new
mv .env.new .env
echo ".env: four random secrets"
echo "  next docker compose up --detach --wait"
