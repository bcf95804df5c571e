"""Names, one a line, the Debian packages without which the tests cannot have their services here."""

import logging
import sys

from tests.services import PrivatePostgreSQL, PrivateRabbitMQ, ServiceError

if __name__ == "__main__":
    logging.disable()  # that a server is away is an answer here, and no error
    for private in (PrivateRabbitMQ, PrivatePostgreSQL):
        if private.find_url() is None:
            try:
                private.find_program()
            except ServiceError:
                sys.stdout.write(f"{private.package}\n")
