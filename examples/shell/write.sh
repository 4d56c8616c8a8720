#!/usr/bin/env bash
# Publishes messages by POST, and enqueues jobs: no library, one curl each. Needs: bash, curl
#
#     write.sh http://127.0.0.1:3000 [TOPIC] [--count N]     publish to a topic
#     write.sh http://127.0.0.1:3000 --task TASK [--count N] enqueue jobs; their numbers go to stdout
#
# A refusal is a problem document (RFC 9457); its `code` is one of a few stable words.
set -eu
base=${1:?usage: $0 URL [TOPIC] [--count N] | URL --task TASK [--count N]}
shift
topic=example/shell task='' count=1
while [ $# -gt 0 ]; do
    case $1 in
        --count) count=$2 && shift 2 ;;
        --task) task=$2 && shift 2 ;;
        *) topic=$1 && shift ;;
    esac
done

post() { # path, body
    curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' --data-binary "$2" \
        "${base%/}/$1"
}

for ((n = 1; n <= count; n++)); do
    if [ -n "$task" ]; then
        # With a key, trying again after a lost answer is harmless: the job that lives is answered.
        answer=$(post api/v1/jobs "{\"task\":\"$task\",\"args\":[$n],\"key\":\"example-$$-$n\"}") || {
            printf '%s\n' "$answer" >&2
            exit 1
        }
        id=${answer#'{"id":'}
        printf '%s\n' "${id%%,*}"
    else
        post "pub/$topic" "{\"n\":$n,\"from\":\"shell\"}" >&2
    fi
done
