"""Eight threads send forty mails through one server over no more than four sessions, each secured by STARTTLS."""

import concurrent.futures
from email.message import EmailMessage

from servers_smtp import CREDENTIALS, mail_server

from generic_connection_pool.contrib.smtp import Credentials, SmtpConnection, SmtpConnectionManager, SmtpServer
from generic_connection_pool.threading import ConnectionPool


def password_of_today(endpoint: str) -> Credentials:
    # asked for whenever a connection is made: a password that has changed is picked up
    return CREDENTIALS


def send(pool: ConnectionPool[str, SmtpConnection], number: int) -> str:
    mail = EmailMessage()
    mail['From'], mail['To'], mail['Subject'] = f'robot-{number}@example.org', 'you@example.org', f'Number {number}'
    mail.set_content(f'This is number {number}.\n')
    with pool.connection('outgoing', timeout=5.0) as smtp:
        refused = smtp.send_message(mail)
    return f'mail {number} was {"refused" if refused else "sent"}'


with mail_server() as server:
    servers = {'outgoing': SmtpServer('localhost', server.port, credentials=password_of_today)}
    # ssl.create_default_context(), that is, which trusts the authority of this server
    manager = SmtpConnectionManager(servers, server.client_context(), io_timeout=10.0)
    pool = ConnectionPool(manager, max_size=4)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        for line in threads.map(lambda number: send(pool, number), range(40)):
            print(line)
    pool.close()
    print(f'{len(server.senders)} mails, from {len(set(server.senders))} senders, came over {server.accepted} sessions')
