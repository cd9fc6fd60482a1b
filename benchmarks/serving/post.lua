-- Sends the bodies in a file, one a line, again and again; reports as one line of JSON.
local bodies, place = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        bodies[#bodies + 1] = wrk.format("POST", nil, wrk.headers, line)
    end
end

function request()
    place = place % #bodies + 1
    return bodies[place]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"duration_us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
