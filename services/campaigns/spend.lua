-- Settle one decision of a campaign about a user: at most once, within caps and budget.
-- KEYS: the user's kept decisions, the user's messages by time, the campaign's state.
-- ARGV: 1 field of the decision, 2 draft, 3 '1' if a message is wanted, 4 '1' to keep the
--       decision even if it spends nothing, 5 milliseconds it is kept, 6 now (ms), 7 message
--       ('c=channel<31>n=campaign<31>decision'), 8 its cost, 9 most messages, 10 most amount (both
--       '' without a bound; amounts in millionths), 11 milliseconds that messages are remembered, then for each cap
--       what the messages it counts have in them ('' for all), the most, and the span (ms).
-- Answers 'new' or 'old', and the decision: a sign ('-' as drafted, 'f' frequency cap, 'b'
-- budget, 'x' both) before the draft. The state counts what is spent in 'amount_u'; in 'amount'
-- stand the thousandths that older versions spent.
local call, argv = redis.call, ARGV
local kept = call('HGET', KEYS[1], argv[1])
if kept then
  return {'old', kept}
end
local sign, now, cost = '-', tonumber(argv[6]), tonumber(argv[8])
if argv[3] == '1' then
  local capped, over = false, false
  for n = 12, #argv, 3 do
    local span, count = tonumber(argv[n + 2]), 0
    -- On both sides of now: decisions may come out of order, and no span may hold too many.
    local near = call('ZRANGEBYSCORE', KEYS[2], '(' .. (now - span), '(' .. (now + span))
    for _, message in ipairs(near) do
      if argv[n] == '' or string.find(message, argv[n], 1, true) then
        count = count + 1
      end
    end
    capped = capped or count >= tonumber(argv[n + 1])
  end
  local spent = call('HMGET', KEYS[3], 'messages', 'amount_u', 'amount')
  if argv[9] ~= '' then
    over = tonumber(spent[1] or '0') + 1 > tonumber(argv[9])
  end
  if argv[10] ~= '' then
    local amount = tonumber(spent[2] or '0') + 1000 * tonumber(spent[3] or '0')
    over = over or amount + cost > tonumber(argv[10])
  end
  sign = capped and (over and 'x' or 'f') or (over and 'b' or '-')
end
local treated = argv[3] == '1' and sign == '-'
local decision = sign .. argv[2]
if not treated and argv[4] ~= '1' then
  call('HINCRBY', KEYS[3], 'decided', 1)
  return {'new', decision}
end
call('HSET', KEYS[1], argv[1], decision)
if call('PTTL', KEYS[1]) < tonumber(argv[5]) then
  call('PEXPIRE', KEYS[1], argv[5])
end
call('HINCRBY', KEYS[3], 'decided', 1)
if treated then
  call('HINCRBY', KEYS[3], 'messages', 1)
  call('HINCRBY', KEYS[3], 'amount_u', argv[8])
  call('ZADD', KEYS[2], argv[6], argv[7])
  call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. (now - 2 * tonumber(argv[11])))
  call('PEXPIRE', KEYS[2], 3 * tonumber(argv[11]))
end
return {'new', decision}
