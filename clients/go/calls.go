package switchboard

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
)

// mostEarly candidates wait for the description they belong to.
const mostEarly = 256

// Description is what peer connections tell each other. It contains its candidates.
type Description struct {
	Type string `json:"type"`
	SDP  string `json:"sdp"`
	Leg  string `json:"leg,omitempty"` // which peer connection it is of; the browser's client library says so
	To   string `json:"to,omitempty"`  // which offer an answer is to
}

// Peer is what a call needs of a WebRTC library; the package peer has it for pion.
type Peer interface {
	Offer() (Description, error)
	Answer(offer Description) (Description, error)
	Accept(answer Description) error
	Candidate(candidate json.RawMessage) error
	Close() error
}

// Call is a call with Name.
type Call struct {
	Name   string
	calls  *Calls
	state  string
	reason string
	peer   Peer
	began  time.Time
	offer  *Description // the other's last description
	said   *Description // our last one
	early  []json.RawMessage
	ready  bool // early candidates were used
}

// Calls are those of one session. Give Hear each message of the session. Ringing is called for each incoming call,
// which it accepts or hangs up; Ended when one is over. Both have goroutines of their own.
type Calls struct {
	Session *Session
	NewPeer func(*Call) (Peer, error)
	Ringing func(*Call)
	Ended   func(*Call)

	mu    sync.Mutex
	calls map[string]*Call
	byes  map[string]string
}

// State is ringing, calling, connecting, connected or ended.
func (c *Call) State() string {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.state
}

// Reason says why a call has ended.
func (c *Call) Reason() string {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.reason
}

// Accept takes an incoming call.
func (c *Call) Accept() error {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.accept()
}

// Hangup ends a call, or declines it.
func (c *Call) Hangup() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.hangup("hangup")
}

// Connected is for the peer, which has a connection. Call it without waiting for it.
func (c *Call) Connected() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	if c.state == "connecting" {
		c.state = "connected"
		ms := time.Since(c.began).Milliseconds()
		_, _ = c.calls.Session.request(c.Name, map[string]any{"type": "report", "name": c.Name, "state": "connected", "ms": ms})
	}
}

// Call calls somebody. Whoever calls somebody who is calling takes that call.
func (cs *Calls) Call(name string) (*Call, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.calls[name]; c != nil {
		if c.state != "ringing" {
			return nil, &Error{Code: "already_in_call", Message: "there is a call with " + name}
		}
		return c, c.accept()
	}
	c := cs.begin(name, "calling")
	peer, err := cs.NewPeer(c)
	if err == nil {
		c.peer = peer
		var offer Description
		if offer, err = peer.Offer(); err == nil {
			c.say(offer)
		}
	}
	if err != nil {
		c.end("failed")
	}
	return c, err
}

// Hear says whether a message of the session was about a call.
func (cs *Calls) Hear(m Message) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.calls[m.Name]
	switch m.Type {
	case "offer", "answer":
		var d Description
		if json.Unmarshal(m.Body, &d) != nil || d.SDP == "" {
			return true
		}
		if d.Type = m.Type; m.Type == "offer" && (c == nil || c.isAnother(d)) {
			if c != nil {
				c.end("hangup")
			}
			c = cs.begin(m.Name, "ringing")
			c.offer = &d
			if cs.Ringing != nil {
				go cs.Ringing(c)
			}
		} else if c != nil {
			c.hear(d)
		}
	case "candidate":
		if c != nil && c.ready {
			_ = c.peer.Candidate(m.Body) // One of an offer that was ignored fits nothing.
		} else if c != nil && len(c.early) < mostEarly {
			c.early = append(c.early, m.Body)
		}
	case "leave":
		if c != nil {
			c.end(cs.whyLeft(m))
		}
	case "message":
		return cs.noteBye(m)
	case "missed":
		for _, c := range cs.calls {
			if m.Resumed {
				c.repeat()
			} else {
				c.end("lost")
			}
		}
		return false
	default:
		return false
	}
	return true
}

// noteBye: the browser's client library says why it is about to leave.
func (cs *Calls) noteBye(m Message) bool {
	var bye struct {
		Switchboard *struct{ Bye string }
	}
	if json.Unmarshal(m.Body, &bye) != nil || bye.Switchboard == nil {
		return false
	}
	if cs.calls[m.Name] != nil {
		if cs.byes == nil {
			cs.byes = map[string]string{}
		}
		cs.byes[m.Name] = bye.Switchboard.Bye
	}
	return true
}

func (cs *Calls) whyLeft(m Message) string {
	if bye := cs.byes[m.Name]; bye != "" {
		return bye
	}
	return m.Reason
}

func (cs *Calls) begin(name, state string) *Call {
	c := &Call{Name: name, calls: cs, state: state, began: time.Now()}
	if cs.calls == nil {
		cs.calls = map[string]*Call{}
	}
	cs.calls[name] = c
	cs.Session.SetBusy(true)
	return c
}

func (c *Call) accept() error {
	if c.state != "ringing" {
		return nil
	}
	c.state = "connecting"
	return c.answer(*c.offer)
}

func (c *Call) hangup(reason string) {
	if c.state != "ended" {
		_, _ = c.calls.Session.request(c.Name, map[string]any{"type": "leave", "name": c.Name})
		c.end(reason)
	}
}

func (c *Call) hear(d Description) {
	switch {
	case d.Type == "answer":
		if c.state == "calling" && c.said != nil && (d.To == "" || d.To == mark(*c.said)) {
			c.state, c.offer = "connecting", &d
			if c.peer.Accept(d) != nil {
				c.hangup("failed")
				return
			}
			c.flush()
		}
	case c.state == "ringing":
		c.offer = &d
	case c.state == "calling":
		c.collide(d)
	case mark(*c.offer) == mark(d):
		c.repeat() // It has not heard our answer.
	default:
		_ = c.answer(d)
	}
}

// collide: the browser's client library gives way to all clients of other makes, which it knows by their having no leg.
// Among these the smaller name gives way.
func (c *Call) collide(offer Description) {
	if offer.Leg != "" || c.calls.Session.name > c.Name {
		return
	}
	_ = c.peer.Close()
	c.peer, c.said, c.state = nil, nil, "connecting"
	_ = c.answer(offer)
}

// answer answers an offer. What cannot be answered ends the call.
func (c *Call) answer(offer Description) error {
	c.offer = &offer
	err := error(nil)
	if c.peer == nil {
		c.peer, err = c.calls.NewPeer(c)
	}
	var answer Description
	if err == nil {
		answer, err = c.peer.Answer(offer)
	}
	if err != nil {
		c.hangup("failed")
		return err
	}
	answer.To = mark(offer)
	c.say(answer)
	c.flush()
	return nil
}

func (c *Call) flush() {
	for _, candidate := range c.early {
		_ = c.peer.Candidate(candidate)
	}
	c.early, c.ready = nil, true
}

// repeat says again what the other may not have heard.
func (c *Call) repeat() {
	if c.said != nil && (c.state == "calling" || c.state == "connecting") {
		c.say(*c.said)
	}
}

func (c *Call) say(d Description) {
	c.said = &d
	s := c.calls.Session
	e, err := s.request(c.Name, map[string]any{"type": d.Type, "name": c.Name, d.Type: d})
	if err != nil {
		return // The session has ended, and the call with it.
	}
	go func() {
		_, err := s.await(context.Background(), e)
		var refusal *Error
		if !errors.As(err, &refusal) {
			return
		}
		c.calls.mu.Lock()
		defer c.calls.mu.Unlock()
		if c.state != "calling" && c.state != "connecting" {
			return
		}
		if refusal.Code == "user_unavailable" {
			c.end("unavailable")
		} else {
			c.end("failed")
		}
	}()
}

func (c *Call) end(reason string) {
	if c.state == "ended" {
		return
	}
	c.state, c.reason = "ended", reason
	cs := c.calls
	if cs.calls[c.Name] == c {
		delete(cs.calls, c.Name)
		delete(cs.byes, c.Name)
	}
	cs.Session.SetBusy(len(cs.calls) > 0)
	if c.peer != nil {
		_ = c.peer.Close()
	}
	if cs.Ended != nil {
		go cs.Ended(c)
	}
}

// isAnother tells whether an offer is of another call: that of another peer connection.
func (c *Call) isAnother(offer Description) bool {
	if c.state != "connecting" && c.state != "connected" {
		return false
	}
	if c.offer.Leg != "" && offer.Leg != "" {
		return c.offer.Leg != offer.Leg
	}
	return origin.FindString(c.offer.SDP) != origin.FindString(offer.SDP)
}

var (
	// The first two words of the line o= are the same for all descriptions of a peer connection.
	origin = regexp.MustCompile(`(?m)^o=\S+ \S+`)
	// These lines distinguish a description from others; candidates that were found meanwhile do not change them.
	marks = regexp.MustCompile(`(?m)^(o=|a=ice-ufrag:)[^\r\n]*`)
)

func mark(d Description) string { return strings.Join(marks.FindAllString(d.SDP, -1), ",") }
