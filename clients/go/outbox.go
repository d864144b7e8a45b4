package switchboard

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"time"
)

const (
	// The server remembers the outcomes of 256 requests.
	underWay    = 200
	mostWaiting = 1000
	// Until the server tells its own: of what it allows a second, this share is used, in bursts of so many.
	perSecond  = 200
	share      = 0.8
	burst      = 64
	frameBytes = 65536
)

type outcome struct {
	reply frame
	err   error
}

type entry struct {
	id     int
	name   string
	text   []byte
	sent   bool // on this connection, and not answered
	tried  bool // on any
	answer chan outcome
}

// outbox has what the server has not acknowledged: it is kept, sent again after a loss, and in order for each receiver.
// Its session's lock guards it.
type outbox struct {
	send      func([]byte)
	later     func(time.Duration) // asks to be pumped then
	entries   []*entry
	ids       int
	open      bool
	refused   map[string]time.Time // until when
	notBefore time.Time
	rate      float64
	tokens    float64
	filledAt  time.Time
	frame     int
}

func newOutbox(send func([]byte), later func(time.Duration)) *outbox {
	o := &outbox{send: send, later: later}
	o.limit(limits{})
	return o
}

func (o *outbox) isWaiting() bool {
	return slices.ContainsFunc(o.entries, func(e *entry) bool { return e.sent })
}

func (o *outbox) add(name string, message map[string]any) (*entry, error) {
	message["id"] = o.ids + 1
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(message); err != nil {
		return nil, err
	}
	if text.Len() > o.frame {
		return nil, &Error{Code: "too_large", Message: "the message has more bytes than the server takes"}
	}
	if len(o.entries) >= mostWaiting {
		return nil, &Error{Code: "overloaded", Message: "too much waits to be sent"}
	}
	o.ids++
	e := &entry{id: o.ids, name: name, text: bytes.TrimSpace(text.Bytes()), answer: make(chan outcome, 1)}
	o.entries = append(o.entries, e)
	o.pump()
	return e, nil
}

// withdraw takes a request back, unless it was tried.
func (o *outbox) withdraw(e *entry) {
	if !e.tried {
		o.entries = slices.DeleteFunc(o.entries, func(other *entry) bool { return other == e })
	}
}

func (o *outbox) opened(l limits) {
	o.open = true
	o.refused = map[string]time.Time{}
	o.notBefore = time.Time{}
	o.limit(l)
	o.pump()
}

func (o *outbox) limit(l limits) {
	o.rate, o.frame = perSecond*share, frameBytes
	if l.SignalsPerSecond != nil {
		o.rate = *l.SignalsPerSecond * share
		if o.rate == 0 { // no limit
			o.rate = math.Inf(1)
		}
	}
	if l.FrameBytes > 0 {
		o.frame = l.FrameBytes
	}
	o.tokens, o.filledAt = burst, time.Now()
}

// lost: what was under way goes again, over the next connection.
func (o *outbox) lost() {
	o.open = false
	for _, e := range o.entries {
		e.sent = false
	}
}

// forget: the session is gone, and under another one the server would not recognise a repetition.
func (o *outbox) forget() {
	for _, e := range slices.Clone(o.entries) {
		if e.tried {
			o.finish(e, outcome{err: &Error{Code: "unavailable", Message: "whether it was delivered is not known"}})
		}
	}
}

func (o *outbox) fail(err error) {
	o.lost()
	for _, e := range slices.Clone(o.entries) {
		o.finish(e, outcome{err: err})
	}
}

func (o *outbox) settle(reply frame) {
	place := slices.IndexFunc(o.entries, func(e *entry) bool { return e.id == *reply.ID })
	if place < 0 {
		return
	}
	e := o.entries[place]
	switch {
	case reply.Type != "error":
		o.finish(e, outcome{reply: reply})
	case reply.Code != "unavailable" && reply.Code != "inbox_full" && reply.Code != "rate_limited":
		o.finish(e, outcome{err: reply.asError()})
	default: // worth another try with the same id
		until := time.Now().Add(reply.retryAfter(time.Second))
		if reply.Code == "rate_limited" && until.After(o.notBefore) {
			// It is about this client; the others are about one receiver.
			o.notBefore, o.tokens = until, 0
		}
		if until.After(o.refused[e.name]) {
			o.refused[e.name] = until
		}
		e.sent = false
	}
	o.pump()
}

func (o *outbox) finish(e *entry, what outcome) {
	o.entries = slices.DeleteFunc(o.entries, func(other *entry) bool { return other == e })
	e.answer <- what
}

// pump sends what may be sent, and comes back when more may.
func (o *outbox) pump() {
	if !o.open {
		return
	}
	now := time.Now()
	wait := o.notBefore.Sub(now)
	if wait <= 0 {
		wait = o.sendWhatMay(now)
	}
	if wait > 0 {
		o.later(wait)
	}
}

// sendWhatMay returns the time until more may be sent, if that is a matter of time.
func (o *outbox) sendWhatMay(now time.Time) (wait time.Duration) {
	waits := func(until time.Duration) {
		if wait == 0 || until < wait {
			wait = until
		}
	}
	flying, byName := 0, map[string]int{}
	for _, e := range o.entries {
		if e.sent {
			flying++
			byName[e.name]++
		}
	}
	for _, e := range o.entries {
		if e.sent {
			continue
		}
		if flying >= underWay {
			return wait
		}
		// After a refusal everything that was under way to that receiver is answered first, and then repeated in order:
		// until the first is repeated, the server refuses what follows.
		if until, isRefused := o.refused[e.name]; isRefused {
			if byName[e.name] > 0 {
				continue
			}
			if until.After(now) {
				waits(until.Sub(now))
				continue
			}
			delete(o.refused, e.name)
		}
		if pace := o.pace(now); pace > 0 {
			waits(pace)
			return wait
		}
		e.sent, e.tried = true, true
		flying++
		byName[e.name]++
		o.send(e.text)
	}
	return wait
}

func (o *outbox) pace(now time.Time) time.Duration {
	if math.IsInf(o.rate, 1) {
		return 0
	}
	o.tokens = min(burst, o.tokens+now.Sub(o.filledAt).Seconds()*o.rate)
	o.filledAt = now
	if o.tokens < 1 {
		return time.Duration((1 - o.tokens) / o.rate * float64(time.Second))
	}
	o.tokens--
	return 0
}
