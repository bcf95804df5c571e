#!/usr/bin/env bash
# Runs `deviceops demo` from a fresh checkout, in a virtual environment. Arguments are passed to the demo.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
activate_environment
exec deviceops demo "$@"
