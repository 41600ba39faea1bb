-- The indexes of jobs that have ended: all of them by their ends, and those whose logs are in their streams by their last writes.

-- Note a write that ends a job, or comes to one that has ended; `member` and `had` are the members of the ended that it gets and loses,
-- "" for none.
local function note_end(ended_jobs, unsealed, id, member, had)
  if had ~= '' then
    redis.call('ZREM', ended_jobs, had)
  end
  if member ~= '' then
    redis.call('ZADD', ended_jobs, '0', member)
  end
  redis.call('ZADD', unsealed, now_ms, id)
end
