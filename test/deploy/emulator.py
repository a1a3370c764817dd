"""Starts ministack 1.5.33, with four rules of AWS's access control that it does not follow, so that the stack's
policies can be applied as they are. Each names where AWS states it."""

import json
from contextvars import ContextVar

from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime

role_to_pass = ContextVar("role_to_pass", default=None)

condition_key = iam_evaluator._resolve_condition_key
action_of = iam_actions.extract_iam_action
resource_of = iam_actions.extract_resource_arn
enforce = iam_evaluator.enforce


def resolve_condition_key(key, context):
    """aws:PrincipalArn is the ARN of the role, not of its session (IAM, "AWS global condition context keys")."""
    value = condition_key(key, context)
    if key.lower() != "aws:principalarn" or ":assumed-role/" not in value:
        return value
    _, _, _, _, account, session = value.split(":", 5)
    return f"arn:aws:iam::{account}:role/{session.split('/')[1]}"


def extract_iam_action(*request):
    """Sending a batch takes the permission to send (SQS, "Amazon SQS API permissions")."""
    action = action_of(*request)
    return "sqs:SendMessage" if action == "sqs:SendMessageBatch" else action


def extract_resource_arn(service, method, path, headers, body, *rest):
    """A schedule's ARN has the name of its group (EventBridge Scheduler, "Resource types")."""
    arn = resource_of(service, method, path, headers, body, *rest)
    if service == "scheduler" and body:
        schedule = json.loads(body)
        role_to_pass.set(schedule.get("Target", {}).get("RoleArn"))
        return arn.replace(":schedule/default/", f":schedule/{schedule.get('GroupName', 'default')}/")
    return arn


def enforce_with_role(access_key, action, service, region, **resource):
    """Whoever makes a schedule must be allowed to pass its role (EventBridge Scheduler, "Set up the execution role")."""
    denied = enforce(access_key, action, service, region, **resource)
    if denied or action not in ("scheduler:CreateSchedule", "scheduler:UpdateSchedule"):
        return denied
    passed = {"iam:PassedToService": "scheduler.amazonaws.com"}
    return enforce(access_key, "iam:PassRole", "iam", region, resource_arn=role_to_pass.get(), service_context=passed)


# It would listen on port 443 as well, where it may.
app._port_is_bindable = lambda *_: False
# After an invocation it waits for what the function wrote: seconds for a first line, of silence, and in all. Its own 5 ms
# of silence lose lines on a busy machine.
lambda_runtime.Worker._drain_stderr_bounded.__defaults__ = (0.3, 0.3, 2.0)
iam_evaluator._resolve_condition_key = resolve_condition_key
iam_evaluator.enforce = enforce_with_role
iam_actions.extract_iam_action = extract_iam_action
iam_actions.extract_resource_arn = extract_resource_arn

if __name__ == "__main__":
    app.main()
