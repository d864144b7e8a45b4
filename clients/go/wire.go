package switchboard

import (
	"encoding/json"
	"time"
)

// Error is what the server refused, or what became of the session. Programs read Code.
type Error struct {
	Code       string
	Message    string
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Message is what a session is given: an offer, answer, candidate, message, leave, presence or ice_servers of the
// server's, or a `missed` of our own. That one says that something may be lost; unless Resumed, another session has
// begun, and the calls of the old one are over.
type Message struct {
	Type    string
	Name    string          // who sent it
	Body    json.RawMessage // of an offer, answer, candidate or message
	Reason  string          // of a leave
	Users   map[string]bool // of a presence
	Resumed bool            // of a missed

	seq    string
	size   int
	resume string
}

// ICEServer is as in RTCPeerConnection.
type ICEServer struct {
	URLs       json.RawMessage `json:"urls"`
	Username   string          `json:"username,omitempty"`
	Credential string          `json:"credential,omitempty"`
}

type heartbeat struct {
	Busy   int `json:"busy_ms"`
	Idle   int `json:"idle_ms"`
	Answer int `json:"answer_ms"`
}

type limits struct {
	SignalsPerSecond *float64 `json:"signals_per_second"`
	FrameBytes       int      `json:"frame_bytes"`
}

// frame is anything that the server sends.
type frame struct {
	Type         string          `json:"type"`
	ID           *int            `json:"id"`
	Name         string          `json:"name"`
	Offer        json.RawMessage `json:"offer"`
	Answer       json.RawMessage `json:"answer"`
	Candidate    json.RawMessage `json:"candidate"`
	Message      json.RawMessage `json:"message"`
	Reason       string          `json:"reason"`
	Users        map[string]bool `json:"users"`
	Seq          string          `json:"seq"`
	Status       string          `json:"status"`
	Code         string          `json:"code"`
	RetryAfterMs *int            `json:"retry_after_ms"`
	Missed       bool            `json:"missed"`

	Success    bool        `json:"success"`
	Session    string      `json:"session"`
	Node       string      `json:"node"`
	Resume     string      `json:"resume"`
	ICEServers []ICEServer `json:"iceServers"`
	Heartbeat  *heartbeat  `json:"heartbeat"`
	Limits     limits      `json:"limits"`
}

func (f frame) body() json.RawMessage {
	for _, body := range []json.RawMessage{f.Offer, f.Answer, f.Candidate, f.Message} {
		if body != nil {
			return body
		}
	}
	return nil
}

func (f frame) asError() *Error {
	e := &Error{Code: f.Code, RetryAfter: f.retryAfter(0)}
	_ = json.Unmarshal(f.Message, &e.Message)
	return e
}

func (f frame) retryAfter(otherwise time.Duration) time.Duration {
	if f.RetryAfterMs == nil {
		return otherwise
	}
	return time.Duration(*f.RetryAfterMs) * time.Millisecond
}
