package switchboard

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/coder/websocket"
)

// connection is one of a session's; the session's lock guards what waits to be written.
type connection struct {
	socket   *websocket.Conn
	outgoing [][]byte
	more     chan struct{}
	heardAt  time.Time
	isFull   bool // it is the app that does not read
}

// connect has one connection from its beginning to its end: whether it was logged in, and its close code.
func (s *Session) connect(url string) (bool, websocket.StatusCode) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opening, opened := context.WithTimeout(ctx, openWithin)
	defer opened()
	go func() {
		select {
		case <-s.done:
			cancel() // while it opens; afterwards the goodbye below comes first
		case <-opening.Done():
		}
	}()
	socket, _, err := websocket.Dial(opening, url, &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return false, -1
	}
	opened()
	socket.SetReadLimit(4 << 20)
	c := &connection{socket: socket, more: make(chan struct{}, 1), heardAt: time.Now()}
	s.mu.Lock()
	s.connection = c
	s.login(c)
	s.mu.Unlock()
	reading, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	go s.write(reading, c)
	go s.listenToSilence(reading, c)
	go func() {
		select {
		case <-s.done:
			_ = socket.Close(1000, "")
		case <-reading.Done():
		}
	}()
	err = s.read(reading, c)
	stopReading()
	s.mu.Lock()
	defer s.mu.Unlock()
	entered := s.node != ""
	s.connection, s.node = nil, ""
	s.outbox.lost()
	_ = socket.CloseNow()
	return entered, websocket.CloseStatus(err)
}

func (s *Session) read(ctx context.Context, c *connection) error {
	for {
		_, text, err := c.socket.Read(ctx)
		if err != nil {
			return err
		}
		var f frame
		if err := json.Unmarshal(text, &f); err != nil {
			return errors.Join(err, c.socket.Close(givenUp, "not the protocol"))
		}
		s.mu.Lock()
		c.heardAt = time.Now()
		s.hear(c, f, len(text))
		for len(s.inbox) >= inboxMost && s.ended == nil {
			c.isFull = true
			s.mu.Unlock()
			select {
			case <-s.room:
			case <-s.done:
			}
			s.mu.Lock()
		}
		c.isFull = false
		s.mu.Unlock()
	}
}

func (s *Session) write(ctx context.Context, c *connection) {
	for {
		select {
		case <-c.more:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		texts := c.outgoing
		c.outgoing = nil
		s.mu.Unlock()
		for _, text := range texts {
			if c.socket.Write(ctx, websocket.MessageText, text) != nil {
				return // The reader hears of it.
			}
		}
	}
}

// listenToSilence notices it in time to resume.
func (s *Session) listenToSilence(ctx context.Context, c *connection) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for {
		s.mu.Lock()
		beat := ms(s.beat.Idle)
		if s.busy || s.outbox.isWaiting() {
			beat = ms(s.beat.Busy)
		}
		wait, answer := time.Until(c.heardAt.Add(beat)), ms(s.beat.Answer)
		if c.isFull {
			wait = beat
		}
		if wait <= 0 {
			s.sayJSON(s.unconfirmed("ping"))
		}
		s.mu.Unlock()
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-s.stirred:
			case <-ctx.Done():
				return
			}
			continue
		}
		asked := time.Now()
		select {
		case <-time.After(answer):
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		isDead := c.heardAt.Before(asked) && !c.isFull
		s.mu.Unlock()
		if isDead {
			_ = c.socket.CloseNow()
			return
		}
	}
}

func (s *Session) login(c *connection) {
	if s.connection != c {
		return // By now there is another one.
	}
	login := map[string]any{"type": "login", "name": s.name, "resumable": true}
	if s.options.Token != nil {
		login["token"] = s.options.Token()
	}
	if s.resume != "" {
		login["resume"] = s.resume
		if s.heard != "" {
			login["last"] = s.heard
		}
	}
	s.sayJSON(login)
}

func (s *Session) hear(c *connection, f frame, size int) {
	switch {
	case f.Type == "login" && f.Success:
		s.enter(f)
	case f.Type == "login":
		s.refused(c, f)
	case f.ID != nil:
		s.outbox.settle(f)
		poke(s.stirred)
	case f.Type == "status":
		if f.Missed {
			s.give(Message{Type: "missed", Resumed: true})
		}
	case f.Type == "pong" || f.Type == "goaway" || f.Type == "error" || f.Type == "ack":
		// After a goaway the close says the same. An error without an id is of nothing that was sent here.
	default:
		if f.Type == "ice_servers" {
			s.ice = f.ICEServers
		}
		if f.Seq != "" {
			s.heard = f.Seq
		}
		s.give(Message{Type: f.Type, Name: f.Name, Body: f.body(), Reason: f.Reason, Users: f.Users, seq: f.Seq, size: size})
	}
}

func (s *Session) enter(f frame) {
	s.id, s.node, s.resume, s.ice = f.Session, f.Node, f.Resume, f.ICEServers
	if f.Heartbeat != nil {
		s.beat = *f.Heartbeat
	}
	s.outbox.opened(f.Limits)
	poke(s.stirred)
	if !s.entered {
		s.entered = true
		close(s.opened)
	}
}

func (s *Session) refused(c *connection, f frame) {
	later := f.RetryAfterMs != nil && (s.entered || f.Code != "name_taken")
	switch {
	case f.Code == "resume_failed":
		s.lose()
		s.login(c)
	case f.Code == "draining":
		go func() { _ = c.socket.Close(givenUp, "") }()
	case later || f.Code == "unavailable":
		time.AfterFunc(f.retryAfter(time.Second), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.login(c)
		})
	default:
		go s.stop(f.asError())
	}
}
