// Package switchboard is a client of the Switchboard signalling server: a Session outlives its connections, logs in,
// resumes, and says and hears everything once and in order. Calls decides which signal belongs to which call.
package switchboard

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Close codes after which no other connection helps. After any other a new one resumes the session.
var stops = map[websocket.StatusCode]string{1000: "closed", 1009: "too_large", 4000: "replaced", 4003: "forbidden",
	4005: "kicked", 4009: "not_logged_in"}

const (
	nameLost   = 4001
	draining   = 1012
	givenUp    = 4900 // a close code of ours, which leaves the session as it is
	openWithin = 4 * time.Second
	stable     = 5 * time.Second // A connection of this age was a good one: the waits begin anew.
	// What the app has taken is confirmed after so many messages or bytes, and with each ping.
	confirmMessages = 32
	confirmBytes    = 128 * 1024
	// What may wait for the app; then nothing more is read.
	inboxMost = 256
)

// Options of a session; the zero value is good.
type Options struct {
	Token        func() string // what the server is given at each login
	ReconnectMin time.Duration // 500 ms: the wait is a random time up to this, doubled with each failure, …
	ReconnectMax time.Duration // … up to this: 20 s
}

// Session is a resumable session of one user.
type Session struct {
	urls    []string
	name    string
	options Options

	mu         sync.Mutex
	outbox     *outbox
	timer      *time.Timer
	connection *connection
	inbox      []Message
	resume     string
	heard      string // the last seq that arrived, …
	taken      string // … that the app has taken, …
	confirmed  string // … and that the server was told of
	messages   int    // taken since then
	bytes      int
	id         string
	node       string
	ice        []ICEServer
	beat       heartbeat
	busy       bool
	entered    bool
	ended      error
	arrived    chan struct{}
	room       chan struct{}
	stirred    chan struct{}
	opened     chan struct{}
	done       chan struct{}
	finished   chan struct{}
}

// Open connects and logs in. It tries until it succeeds, is refused, or ctx ends. The urls are used in turn.
func Open(ctx context.Context, urls []string, name string, options Options) (*Session, error) {
	if options.ReconnectMin == 0 {
		options.ReconnectMin = 500 * time.Millisecond
	}
	if options.ReconnectMax == 0 {
		options.ReconnectMax = 20 * time.Second
	}
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	s := &Session{urls: urls, name: name, options: options, beat: heartbeat{4000, 15000, 4000},
		arrived: signal(), room: signal(), stirred: signal(),
		opened: make(chan struct{}), done: make(chan struct{}), finished: make(chan struct{})}
	s.outbox = newOutbox(func(text []byte) { s.say(text) }, s.pumpLater)
	go s.run()
	select {
	case <-s.opened:
		return s, nil
	case <-s.done:
		return nil, s.ended
	case <-ctx.Done():
		s.Close()
		return nil, ctx.Err()
	}
}

// Close ends the session: whoever is in a call with it hears `leave`.
func (s *Session) Close() {
	s.stop(&Error{Code: "closed", Message: "the session was closed"})
	<-s.finished
}

// Name is the session's user.
func (s *Session) Name() string { return s.name }

// ID is the public id of the session.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Node is the node that the session is connected to, if it is.
func (s *Session) Node() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// ICEServers are those that the server offers now.
func (s *Session) ICEServers() []ICEServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ice
}

// SetBusy says whether there is a call: then silence is noticed sooner.
func (s *Session) SetBusy(busy bool) {
	s.mu.Lock()
	s.busy = busy
	s.mu.Unlock()
	poke(s.stirred)
}

// Next waits for the next message. It fails with the session's end, whose code is `closed` after Close.
func (s *Session) Next(ctx context.Context) (Message, error) {
	for {
		s.mu.Lock()
		if len(s.inbox) > 0 {
			message := s.inbox[0]
			s.inbox = s.inbox[1:]
			s.confirm(message)
			if len(s.inbox) > 0 {
				poke(s.arrived)
			}
			s.mu.Unlock()
			poke(s.room)
			return message, nil
		}
		ended := s.ended
		s.mu.Unlock()
		if ended != nil {
			return Message{}, ended
		}
		select {
		case <-s.arrived:
		case <-s.done:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// Send sends anything that is JSON to somebody, call or not: "delivered", or "queued" for who is between connections.
func (s *Session) Send(ctx context.Context, name string, message any) (string, error) {
	return s.Signal(ctx, "message", name, message)
}

// Signal sends an offer, answer, candidate or message.
func (s *Session) Signal(ctx context.Context, kind, name string, body any) (string, error) {
	sent, err := s.Post(kind, name, body)
	if err != nil {
		return "", err
	}
	return sent(ctx)
}

// Post does not wait for the answer, as Signal does, but returns what does. What is posted first is sent first.
func (s *Session) Post(kind, name string, body any) (func(context.Context) (string, error), error) {
	e, err := s.request(name, map[string]any{"type": kind, "name": name, kind: body})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) {
		reply, err := s.await(ctx, e)
		return reply.Status, err
	}, nil
}

// Presence tells who of these is here.
func (s *Session) Presence(ctx context.Context, names ...string) (map[string]bool, error) {
	e, err := s.request("", map[string]any{"type": "presence", "names": names})
	if err != nil {
		return nil, err
	}
	reply, err := s.await(ctx, e)
	return reply.Users, err
}

func (s *Session) request(name string, message map[string]any) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return nil, s.ended
	}
	defer poke(s.stirred)
	return s.outbox.add(name, message)
}

func (s *Session) await(ctx context.Context, e *entry) (frame, error) {
	select {
	case what := <-e.answer:
		return what.reply, what.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.outbox.withdraw(e)
		return frame{}, ctx.Err()
	}
}

func (s *Session) confirm(m Message) {
	if m.seq == "" || m.resume != s.resume {
		return
	}
	s.taken = m.seq
	s.messages++
	s.bytes += m.size
	if s.messages >= confirmMessages || s.bytes >= confirmBytes {
		s.sayJSON(s.unconfirmed("ack"))
	}
}

func (s *Session) unconfirmed(kind string) map[string]any {
	message := map[string]any{"type": kind}
	if s.taken != s.confirmed {
		s.confirmed, s.messages, s.bytes = s.taken, 0, 0
		message["seq"] = s.taken
	}
	return message
}

func (s *Session) run() {
	defer close(s.finished)
	failures := 0
	for turn := 0; ; turn++ {
		began := time.Now()
		entered, code := s.connect(s.urls[turn%len(s.urls)])
		if reason, isEnd := stops[code]; isEnd {
			s.stop(&Error{Code: reason, Message: "the server closed the connection"})
		}
		s.mu.Lock()
		if code == nameLost {
			s.lose()
		}
		ended := s.ended
		s.mu.Unlock()
		if ended != nil {
			return
		}
		if entered && time.Since(began) > stable {
			failures = 0
		} else {
			failures++
		}
		// A random time, so that the clients of a node that died do not come back in one moment.
		limit := float64(s.options.ReconnectMin) * math.Pow(2, float64(min(failures, 30)))
		wait := time.Duration(rand.Float64() * min(limit, float64(s.options.ReconnectMax)))
		if code == draining && entered {
			wait = 0
		}
		select {
		case <-time.After(wait):
		case <-s.done:
		}
	}
}

// stop ends the session for good.
func (s *Session) stop(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	s.ended = why
	s.outbox.fail(why)
	close(s.done)
}

// lose: the session is gone, and another one will have its name.
func (s *Session) lose() {
	s.resume, s.heard, s.taken, s.confirmed = "", "", "", ""
	s.outbox.forget()
	s.give(Message{Type: "missed"})
}

func (s *Session) give(m Message) {
	m.resume = s.resume
	s.inbox = append(s.inbox, m)
	poke(s.arrived)
}

func (s *Session) pumpLater(wait time.Duration) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.outbox.pump()
		poke(s.stirred)
	})
}

func (s *Session) say(text []byte) {
	if c := s.connection; c != nil {
		c.outgoing = append(c.outgoing, text)
		poke(c.more)
	}
}

func (s *Session) sayJSON(message map[string]any) {
	text, _ := json.Marshal(message) // what is said so always is JSON
	s.say(text)
}

func poke(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}
