#!/usr/bin/env bash
# The tour, from a fresh checkout: `deviceops demo` with what it needs installed beside it. Arguments go to the demo.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
activate_environment
exec deviceops demo "$@"
