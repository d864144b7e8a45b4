package switchboard

// Plays clients/transcripts.json, whose `about` says what the steps mean.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const loggedIn = `{"type":"login","success":true,"name":"alice","session":"00000000000000000000000000000001",
	"node":"one","iceServers":[],"resumed":false,"grace_ms":10000,"resume":"secret"}`

// It never takes so long, except on a machine that is busy.
const within = 15 * time.Second

type object = map[string]any

type served struct {
	address string
	socket  *websocket.Conn
	frames  chan object
	code    atomic.Int64
}

type play struct {
	t           *testing.T
	ctx         context.Context
	connections chan *served
	now         *served
	known       object
	sent        []chan string
	session     *Session
	opening     chan error
	listening   chan error
	events      chan Message
	calls       *Calls
	callsOf     map[string]*Call
	rang        chan *Call
	connectable atomic.Bool
	refusedAt   time.Time
}

func TestTranscripts(t *testing.T) {
	text, err := os.ReadFile("../transcripts.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "about")
	for part, text := range all {
		transcripts := map[string][]json.RawMessage{}
		if err := json.Unmarshal(text, &transcripts); err != nil {
			t.Fatal(err)
		}
		for title, steps := range transcripts {
			t.Run(part+": "+title, func(t *testing.T) { t.Parallel(); run(t, steps) })
		}
	}
}

func run(t *testing.T, steps []json.RawMessage) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := &play{t: t, ctx: ctx, connections: make(chan *served, 10), known: object{}, opening: make(chan error, 1),
		listening: make(chan error, 1), events: make(chan Message, 100), callsOf: map[string]*Call{}, rang: make(chan *Call, 10)}
	p.connectable.Store(true)
	urls := []string{}
	for _, address := range []string{"A", "B"} {
		server := httptest.NewServer(p.serve(address))
		defer server.Close()
		urls = append(urls, strings.Replace(server.URL, "http", "ws", 1))
	}
	go p.listen(urls)
	defer func() {
		cancel()
		if p.session != nil {
			p.session.Close()
		}
	}()
	for number, text := range steps {
		times := struct {
			Times int
			After int `json:"after_ms"`
		}{Times: 1}
		step := object{}
		if json.Unmarshal(text, &times) != nil || json.Unmarshal(text, &step) != nil {
			t.Fatalf("step %d is not understood", number+1)
		}
		delete(step, "times")
		delete(step, "after_ms")
		for repetition := 1; repetition <= times.Times; repetition++ {
			for kind, what := range step {
				if err := p.step(kind, p.filled(what, repetition)); err != nil {
					t.Fatalf("step %d, %s: %v", number+1, text, err)
				}
				if time.Since(p.refusedAt) < time.Duration(times.After)*time.Millisecond {
					t.Fatalf("step %d, %s: too soon", number+1, text)
				}
			}
		}
	}
}

func (p *play) serve(address string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		socket, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		s := &served{address: address, socket: socket, frames: make(chan object, 1000)}
		p.connections <- s
		for {
			_, text, err := socket.Read(context.Background())
			if err != nil {
				s.code.Store(int64(websocket.CloseStatus(err)))
				close(s.frames)
				return
			}
			frame := object{}
			_ = json.Unmarshal(text, &frame)
			s.frames <- frame
		}
	}
}

func (p *play) listen(urls []string) {
	session, err := Open(p.ctx, urls, "alice", Options{ReconnectMin: 20 * time.Millisecond, ReconnectMax: 20 * time.Millisecond})
	p.session = session
	if err == nil {
		p.calls = &Calls{Session: session, Ringing: func(c *Call) { p.rang <- c },
			NewPeer: func(c *Call) (Peer, error) { return newFakePeer(p, c), nil }}
	}
	p.opening <- err
	for err == nil {
		var m Message
		if m, err = session.Next(p.ctx); err == nil && !p.calls.Hear(m) {
			p.events <- m
		}
	}
	p.listening <- err
}

func (p *play) filled(what any, repetition int) any {
	switch what := what.(type) {
	case object:
		all := object{}
		for key, value := range what {
			all[key] = p.filled(value, repetition)
		}
		return all
	case string:
		if what == "#" {
			return float64(repetition)
		}
		return strings.ReplaceAll(what, "#", fmt.Sprint(repetition))
	}
	return what
}

func (p *play) matches(expected, heard any) bool {
	switch expected := expected.(type) {
	case object:
		fields, isObject := heard.(object)
		for key, value := range expected {
			if !isObject || !p.matches(value, fields[key]) {
				return false
			}
		}
		return isObject
	case string:
		if strings.HasPrefix(expected, "$") {
			if _, isKnown := p.known[expected]; !isKnown {
				p.known[expected] = heard
			}
			return heard != nil && p.known[expected] == heard
		}
		return expected == "*" || expected == heard
	}
	return reflect.DeepEqual(expected, heard)
}

func (p *play) write(message object) error {
	text, _ := json.Marshal(message)
	for name, value := range p.known {
		known, _ := json.Marshal(value)
		text = bytes.ReplaceAll(text, []byte(`"`+name+`"`), known)
	}
	return p.now.socket.Write(p.ctx, websocket.MessageText, text)
}

// next is the next frame, or nil if none comes in time or the connection is gone.
func (p *play) next(within time.Duration, butPings bool) object {
	timer := time.After(within)
	for {
		select {
		case frame := <-p.now.frames:
			if frame["type"] == "ping" && butPings {
				_ = p.write(object{"type": "pong"})
			} else if frame["type"] == "report" {
				_ = p.write(object{"type": "ack", "id": frame["id"], "status": "delivered"})
			} else {
				return frame
			}
		case <-timer:
			return nil
		}
	}
}

func (p *play) connects(address string) error {
	select {
	case p.now = <-p.connections:
		if p.now.address != address {
			return fmt.Errorf("to %s", p.now.address)
		}
		return nil
	case <-time.After(within):
		return fmt.Errorf("it does not")
	}
}

func (p *play) sends(expected object) error {
	if frame := p.next(within, expected["type"] != "ping"); !p.matches(expected, frame) {
		return fmt.Errorf("sent %v", frame)
	}
	return nil
}

func (p *play) step(kind string, what any) error {
	switch kind {
	case "logs_in":
		reply := object{}
		_ = json.Unmarshal([]byte(loggedIn), &reply)
		for key, value := range what.(object) {
			reply[key] = value
		}
		if err := p.connects("A"); err != nil {
			return err
		}
		if err := p.sends(object{"type": "login", "name": "alice", "resumable": true}); err != nil {
			return err
		}
		if err := p.write(reply); err != nil {
			return err
		}
		return <-p.opening
	case "connects":
		return p.connects(what.(string))
	case "sends":
		return p.sends(what.(object))
	case "server":
		if what.(object)["retry_after_ms"] != nil {
			p.refusedAt = time.Now()
		}
		return p.write(what.(object))
	case "closes":
		_ = p.now.socket.Close(websocket.StatusCode(int(what.(float64))), "")
	case "breaks":
		return p.now.socket.CloseNow()
	case "silent":
		if frame := p.next(150*time.Millisecond, true); frame != nil {
			return fmt.Errorf("sent %v", frame)
		}
	case "gone":
		for range p.now.frames {
		}
		if code, isCode := what.(float64); isCode && p.now.code.Load() != int64(code) {
			return fmt.Errorf("with %d", p.now.code.Load())
		}
	case "send":
		answer := make(chan string, 1)
		p.sent = append(p.sent, answer)
		to := what.([]any)
		if p.session == nil {
			return fmt.Errorf("it is not logged in")
		}
		sent, err := p.session.Post("message", to[0].(string), to[1])
		if err != nil {
			answer <- err.(*Error).Code
			return nil
		}
		go func() {
			status, err := sent(p.ctx)
			if refusal, isError := err.(*Error); isError {
				status = refusal.Code
			}
			answer <- status
		}()
	case "answers":
		expected := what.([]any)
		select {
		case answer := <-p.sent[int(expected[0].(float64))-1]:
			if answer != expected[1] {
				return fmt.Errorf("was told %s", answer)
			}
		case <-time.After(within):
			return fmt.Errorf("it is not answered")
		}
	case "close":
		go p.session.Close()
	case "emits":
		return p.emits(what.(object))
	case "refused", "ended":
		outcomes := map[string]chan error{"refused": p.opening, "ended": p.listening}
		select {
		case err := <-outcomes[kind]:
			if refusal, isError := err.(*Error); !isError || refusal.Code != what {
				return fmt.Errorf("it was %v", err)
			}
		case <-time.After(within):
			return fmt.Errorf("it was not")
		}
	default:
		return p.callStep(kind, what)
	}
	return nil
}

func (p *play) emits(expected object) error {
	select {
	case m := <-p.events:
		heard := object{"type": m.Type, "name": m.Name, "resumed": m.Resumed}
		if m.Type == "message" {
			var body any
			_ = json.Unmarshal(m.Body, &body)
			heard["message"] = body
		}
		if !p.matches(expected, heard) {
			return fmt.Errorf("was given %v", heard)
		}
		return nil
	case <-time.After(within):
		return fmt.Errorf("was given nothing")
	}
}

func (p *play) callStep(kind string, what any) (err error) {
	switch kind {
	case "call":
		p.callsOf[what.(string)], err = p.calls.Call(what.(string))
	case "accept":
		err = p.callsOf[what.(string)].Accept()
	case "hangup":
		p.callsOf[what.(string)].Hangup()
	case "reason":
		if reason := p.callsOf[what.([]any)[0].(string)].Reason(); reason != what.([]any)[1] {
			err = fmt.Errorf("it is %s", reason)
		}
	case "unconnectable":
		p.connectable.Store(false)
	case "state":
		name, state := what.([]any)[0].(string), what.([]any)[1]
		if state == "ringing" {
			p.callsOf[name] = <-p.rang
		}
		for deadline := time.Now().Add(within); p.callsOf[name].State() != state; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("it is %s", p.callsOf[name].State())
			}
		}
	default:
		err = fmt.Errorf("there is no such step")
	}
	return err
}

// fakePeer is connected once it has both descriptions.
type fakePeer struct {
	play    *play
	call    *Call
	id      int64
	version int
}

var peersMade atomic.Int64

func newFakePeer(p *play, c *Call) *fakePeer {
	return &fakePeer{play: p, call: c, id: peersMade.Add(1)}
}

func (f *fakePeer) describe(kind string) Description {
	f.version++
	return Description{Type: kind, SDP: fmt.Sprintf("o=alice %d %d\r\na=ice-ufrag:%d.%d\r\n", f.id, f.version, f.id, f.version)}
}

func (f *fakePeer) Offer() (Description, error) { return f.describe("offer"), nil }

func (f *fakePeer) Answer(Description) (Description, error) {
	if f.play.connectable.Load() {
		go f.call.Connected()
	}
	return f.describe("answer"), nil
}

func (f *fakePeer) Accept(Description) error        { go f.call.Connected(); return nil }
func (f *fakePeer) Candidate(json.RawMessage) error { return nil }
func (f *fakePeer) Close() error                    { return nil }
