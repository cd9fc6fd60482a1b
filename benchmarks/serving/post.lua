-- Sends the bodies in a file, one a line, again and again, each to the next of the paths, if any;
-- reports as one line of JSON.
local requests, place = {}, 0

function init(arguments)
    local paths = #arguments - 1
    for line in io.lines(arguments[1]) do
        local path = paths > 0 and arguments[2 + #requests % paths] or nil
        requests[#requests + 1] = wrk.format("POST", path, wrk.headers, line)
    end
end

function request()
    place = place % #requests + 1
    return requests[place]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"duration_us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
