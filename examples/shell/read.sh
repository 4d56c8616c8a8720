#!/usr/bin/env bash
# Reads task events as Server-Sent Events and resumes by position. Needs: bash, curl
#
#     read.sh http://127.0.0.1:3000 [TOPIC] [--after POSITION] [--count N]
#
# Each event goes to stdout as one line of JSON. The id of an event is its position; sent back as Last-Event-ID it
# makes the server go on behind it. Browsers' EventSource does that by itself.
set -u
base=${1:?usage: $0 URL [TOPIC] [--after POSITION] [--count N]}
shift
topic=task after=earliest left=-1 failures=0
while [ $# -gt 0 ]; do
    case $1 in
        --after) after=$2 && shift 2 ;;
        --count) left=$2 && shift 2 ;;
        *) topic=$1 && shift ;;
    esac
done

# Reads one stream from stdin. Leaves the position in `after`, and in `status` what curl says at its end.
stream() {
    local line id='' data='' cr=$'\r'
    status=000
    while [ "$left" -ne 0 ] && IFS= read -r line; do
        line=${line%"$cr"}
        case $line in
            'id: '*) id=${line#id: } ;;
            'data: '*) data+=${line#data: } ;;
            ': status '*) status=${line#: status } ;;
            '') # the event is complete
                if [ -n "$data" ]; then
                    printf '%s\n' "$data" || exit 0
                    after=$id failures=0 left=$((left - 1))
                fi
                id='' data=''
                ;;
        esac
    done
}

while [ "$left" -ne 0 ]; do
    # curl says the status in a line that SSE takes for a comment. A position stands in the query the first time.
    exec 3< <(exec curl --silent --no-buffer --max-time 86400 --header 'Accept: text/event-stream' \
        --write-out '\n: status %{http_code}\n' "${base%/}/sub/$topic?after=$after")
    curl=$!
    stream <&3
    exec 3<&-
    kill "$curl" 2>/dev/null
    [ "$left" -eq 0 ] && exit 0
    case $status in
        429) ;;
        4*) # 410: the position is gone, begin anew or think
            echo "refused with $status" >&2
            exit 1
            ;;
    esac
    echo "the stream ended ($status), coming back" >&2
    sleep "0.$((RANDOM % 5 + 1))"
    failures=$((failures + 1))
    [ "$failures" -gt 3 ] && sleep $((failures < 15 ? failures : 15))
done
