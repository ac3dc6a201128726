# Asks for attestation as several users, says what comes, and goes on asking.
import http.client, os, socket, time

AGENT = "/run/redoubt/attestation.sock"


class Agent(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(AGENT)


def ask(method, path):
    agent = Agent("agent", timeout=60)
    agent.request(method, path)
    answer = agent.getresponse()
    return answer.status, answer.read()


def as_user(user, work):
    child = os.fork()
    if child == 0:
        os.setgid(user)
        os.setuid(user)
        work()
        os._exit(0)
    os.waitpid(child, 0)


def say(name, method, path):
    status, body = ask(method, path)
    text = body.hex() if status == 200 and path.startswith("/attestation") else body.decode().strip()
    print(f"{name}: {status} {text}", flush=True)


def get_in(name, work):
    try:
        work()
        print(f"{name}: done")
    except OSError as error:
        print(f"{name}: {error.strerror}", flush=True)


def app():
    own = "public_key=0102&user_data=" + b"redoubt/1 endpoint\nmine".hex()
    say("document", "GET", "/attestation?nonce=c0ffee&" + own)
    say("extend", "POST", "/pcr/17?data=" + b"release 1".hex())
    say("unlocked", "GET", "/attestation?nonce=c0ffee")
    say("lock", "POST", "/pcr/17/lock")
    say("extend locked", "POST", "/pcr/17?data=00")
    say("extend 16", "POST", "/pcr/16?data=00")
    say("lock 18", "POST", "/pcr/18/lock")
    say("locked", "GET", "/attestation?nonce=c0ffee")
    say("too long", "GET", "/attestation?user_data=" + "00" * 1006)


say("root", "GET", "/attestation?nonce=c0ffee")
get_in("root removes it", lambda: os.unlink(AGENT))
get_in("root writes beside it", lambda: open("/run/redoubt/other", "w"))
get_in("root moves the directory", lambda: os.rename("/run/redoubt", "/run/other"))
get_in("root changes the mode", lambda: os.chmod(AGENT, 0o600))
as_user(1001, lambda: say("another", "GET", "/attestation?nonce=c0ffee"))
as_user(1000, app)


def go_on():
    count = 0
    while True:
        status, _ = ask("GET", f"/attestation?nonce={count:08x}")
        count += 1
        if status != 200:
            print(f"workload refused: {status}", flush=True)
        if count % 10 == 0:
            print(f"workload answered: {count}", flush=True)
        time.sleep(0.05)


as_user(1000, go_on)
