-- What wrk sends: wrk -s requests.lua URL -- WORK FILE PREFIX, with an id of a user in each line of
-- FILE; e-mail addresses begin with PREFIX, and no two are the same.

local ids, count, total = {}, 0, 0
local work, prefix

function init(arguments)
    work, prefix = arguments[1], arguments[3]
    for id in io.lines(arguments[2]) do ids[#ids + 1] = id end
    math.randomseed(1)
end

local function get()
    return wrk.format("GET", "/api/user/get-user?id=" .. ids[math.random(#ids)])
end

local function create()
    count = count + 1
    local body = '{"email": "' .. prefix .. count .. '@example.org", "full_name": "Ada Lovelace"}'
    return wrk.format("POST", "/api/user/create-user", {["Content-Type"] = "application/json"}, body)
end

function request()
    if work == "get" then return get() end
    if work == "list" then return wrk.format("GET", "/api/user/get-users") end
    if work == "create" then return create() end
    total = total + 1
    return total % 10 == 0 and create() or get()
end
