-- Paths whose levels are separated by `/`. Empty levels do not count: `/a//b/` has the levels `a` and `b`.

local path = {}

function path.levels(text)
    local levels = {}
    for level in text:gmatch "[^/]+" do
        table.insert(levels, level)
    end
    return levels
end

-- The same path with one `/` between its levels and none around them.
function path.clean(text)
    return table.concat(path.levels(text), "/")
end

return path
