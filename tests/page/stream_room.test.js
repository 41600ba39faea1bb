import assert from "node:assert/strict";
import { test } from "node:test";

import { MOST_STREAMS, StreamRoom } from "../../src/ci_eventstore/web/page/js/net/stream_room.js";

/** Channels of one browser: what one says, all others hear. */
function browser() {
  const channels = [];
  return () => {
    const channel = { onmessage: null, close: () => channels.splice(channels.indexOf(channel), 1) };
    channel.postMessage = (data) => {
      for (const other of channels.filter((one) => one !== channel)) other.onmessage({ data });
    };
    channels.push(channel);
    return channel;
  };
}

/** Tabs with a stream each, that note when they have to close it. */
function tabs(count) {
  const channel = browser();
  const closed = [];
  const rooms = Array.from({ length: count }, (_, number) =>
    new StreamRoom(() => closed.push(number), channel(), MOST_STREAMS));
  return { rooms, closed };
}

test("the oldest stream makes room for the newest", () => {
  const { rooms, closed } = tabs(MOST_STREAMS + 3);
  rooms.forEach((room) => room.enter());
  assert.deepEqual(closed, [0, 1, 2]);
});

test("a stream that comes back is the newest, so tabs take turns", () => {
  const { rooms, closed } = tabs(MOST_STREAMS + 1);
  rooms.forEach((room) => room.enter());
  rooms[0].enter();
  rooms[1].enter();
  assert.deepEqual(closed, [0, 1, 2]);
});

test("a stream that ended leaves its room to another", () => {
  const { rooms, closed } = tabs(MOST_STREAMS + 1);
  rooms.slice(0, MOST_STREAMS).forEach((room) => room.enter());
  rooms[1].leave();
  rooms[2].close();
  rooms[MOST_STREAMS].enter();
  rooms[1].enter();
  assert.deepEqual(closed, []);
});

test("one stream that begins again and again takes one place", () => {
  const { rooms, closed } = tabs(2);
  rooms[0].enter();
  for (let time = 0; time < 10; time++) rooms[1].enter();
  assert.deepEqual(closed, []);
});

test("a tab without a stream has nothing to close", () => {
  const { rooms, closed } = tabs(MOST_STREAMS + 2);
  rooms.slice(1).forEach((room) => room.enter());
  assert.deepEqual(closed, [1]);
});
