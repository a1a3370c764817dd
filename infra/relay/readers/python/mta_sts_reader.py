"""A complete reader of the policy table for a mail transfer agent in Python: what to do about one recipient domain.

Needs boto3. Credentials, region and endpoints are the SDK's own business. As a program it answers questions from
standard input, one JSON object a line, and reports at the end which policies it used:

    $ POLICY_TABLE=... REQUEST_QUEUE_URL=... python3 mta_sts_reader.py
    {"domain": "example.com", "mx": ["mail.example.com", "mx.evil.example"]}
    {"domain": "example.com", "action": "enforce", "allowed": ["mail.example.com"]}

It must not know how policies are fetched: it believes the table, and checks what it reads.
"""

import json
import os
import re
import sys
import time
from collections import OrderedDict

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# A policy is read again after this long, so that a change is known within minutes.
CACHE_SECONDS = float(os.environ.get("CACHE_SECONDS", "300"))
# A domain that is not in the table is asked for once in this time, however much mail there is for it.
REQUEST_AGAIN_SECONDS = 3600
MAX_DOMAINS = 100_000
USED_PER_MESSAGE = 1_000

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# At least two labels, and the last not all digits: "localhost" and 192.0.2.1 have no policy.
HOST_NAME = re.compile(rf"(?:{LABEL}\.)+(?!\d+$){LABEL}")
MAX_DOMAIN_LENGTH = 244

# The table is given two seconds. Whoever waits longer holds up mail.
IMPATIENT = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})


class PolicyReader:
    def __init__(self, table, queue_url, dynamodb=None, sqs=None, clock=time.time):
        self.table = table
        self.queue_url = queue_url
        self.dynamodb = dynamodb or boto3.client("dynamodb", config=IMPATIENT)
        self.sqs = sqs or boto3.client("sqs", config=IMPATIENT)
        self.clock = clock
        self.cache = OrderedDict()  # domain -> (read at, item)
        self.requested = OrderedDict()  # domain -> when
        self.used = OrderedDict()  # domains since the last report
        self.outage = False

    def look_up(self, domain):
        """(action, patterns). The action is one of

        enforce  deliver only to MX hosts that match a pattern, with a valid certificate (RFC 8461 section 5)
        testing  deliver as ever, and report (RFC 8460)
        none     no policy: deliver as ever
        unknown  the table cannot be reached and nothing is known of the domain: defer, if you can
        """
        domain = domain.lower().removesuffix(".")
        if len(domain) > MAX_DOMAIN_LENGTH or not HOST_NAME.fullmatch(domain):
            return "none", []
        now = self.clock()
        read_at, item = self.cache.get(domain, (0, None))
        if item is None or not read_at <= now < read_at + CACHE_SECONDS or not is_valid(item, now):
            try:
                answer = self.dynamodb.get_item(TableName=self.table, Key={"Domain": {"S": domain}})
            except (BotoCoreError, ClientError) as error:
                # Denied or expired credentials too. What is known and valid goes on being used.
                self.say_outage(error)
                if item is None or not is_valid(item, now):
                    return "unknown", []
            else:
                self.say_outage(None)
                item = answer.get("Item")
                if not is_valid(item, now):
                    self.cache.pop(domain, None)
                    self.request(domain, now)
                    return "none", []
                remember(self.cache, domain, (now, item))
        remember(self.used, domain, None)
        mode = "none" if item.get("Backoff", {}).get("BOOL", False) else item["Mode"]["S"]
        if mode == "none":
            return mode, []
        return mode, [pattern["S"] for pattern in item["MX"]["L"]]

    def request(self, domain, now):
        """Has the domain looked at. A relay with a resolver at hand asks for the TXT record first."""
        if now < self.requested.get(domain, 0) + REQUEST_AGAIN_SECONDS:
            return
        if self.send({"domain": domain}):
            remember(self.requested, domain, now)

    def report_use(self):
        """Once a day. A policy that nobody reports for 180 days is pruned."""
        while self.used:
            domains = list(self.used)[:USED_PER_MESSAGE]
            if not self.send({"used": domains}):
                return
            for domain in domains:
                self.used.pop(domain, None)

    def send(self, message):
        try:
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=json.dumps(message))
            return True
        except (BotoCoreError, ClientError) as error:
            print(f"request queue: {error}", file=sys.stderr)
            return False

    def say_outage(self, error):
        """Once when it begins and once when it ends, not for every message."""
        if error is not None and not self.outage:
            print(f"policy table cannot be read, last known policies are used: {error}", file=sys.stderr)
        if error is None and self.outage:
            print("policy table can be read again", file=sys.stderr)
        self.outage = error is not None


def is_valid(item, now):
    """Whether an item can be used now. Also items written by hand, or by a version to come, must do no harm."""
    try:
        if item is None or not float(item["ValidEnd"]["N"]) > now * 1000:
            return False
        if "LastUpdate" not in item:
            return False
        if item.get("Backoff", {}).get("BOOL", False) or item["Mode"]["S"] == "none":
            return True
        patterns = [pattern["S"] for pattern in item["MX"]["L"]]
        sound = all(HOST_NAME.fullmatch(pattern.removeprefix("*.")) for pattern in patterns)
        return item["Mode"]["S"] in ("enforce", "testing") and len(patterns) > 0 and sound
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def matches(pattern, mx):
    """RFC 8461 section 4.1: "*." stands for exactly one left-most label."""
    mx = mx.lower().removesuffix(".")
    if pattern.startswith("*."):
        return mx.partition(".")[2] == pattern[2:]
    return mx == pattern


def remember(entries, key, value):
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > MAX_DOMAINS:
        entries.popitem(last=False)


def main():
    reader = PolicyReader(os.environ["POLICY_TABLE"], os.environ["REQUEST_QUEUE_URL"])
    for line in sys.stdin:
        question = json.loads(line)
        action, patterns = reader.look_up(question["domain"])
        allowed = [mx for mx in question["mx"] if any(matches(pattern, mx) for pattern in patterns)]
        answer = {"domain": question["domain"], "action": action, "allowed": allowed}
        print(json.dumps(answer), flush=True)
    reader.report_use()


if __name__ == "__main__":
    main()
