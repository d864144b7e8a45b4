// Package peer makes pion the peer of a call.
package peer

import (
	"encoding/json"

	"github.com/pion/webrtc/v4"

	switchboard "git.example.org/switchboard/clients/go"
)

// Peer is a peer connection of pion.
type Peer struct {
	PC      *webrtc.PeerConnection
	setUp   func(pc *webrtc.PeerConnection, calling bool) error
	isSetUp bool
}

// New makes the peer of a call. setUp adds tracks and channels: before the offer, or when the other's offer is known.
func New(call *switchboard.Call, configuration webrtc.Configuration,
	setUp func(pc *webrtc.PeerConnection, calling bool) error) (*Peer, error) {
	pc, err := webrtc.NewPeerConnection(configuration)
	if err != nil {
		return nil, err
	}
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			go call.Connected()
		}
	})
	return &Peer{PC: pc, setUp: setUp}, nil
}

// ICEServers are the session's, as pion takes them.
func ICEServers(session *switchboard.Session) (servers []webrtc.ICEServer) {
	for _, one := range session.ICEServers() {
		var urls []string
		if json.Unmarshal(one.URLs, &urls) != nil {
			var url string
			_ = json.Unmarshal(one.URLs, &url) // It is one or the other.
			urls = []string{url}
		}
		servers = append(servers, webrtc.ICEServer{URLs: urls, Username: one.Username, Credential: one.Credential})
	}
	return servers
}

func (p *Peer) Offer() (switchboard.Description, error) {
	if err := p.add(true); err != nil {
		return switchboard.Description{}, err
	}
	offer, err := p.PC.CreateOffer(nil)
	return p.local(offer, err)
}

func (p *Peer) Answer(offer switchboard.Description) (switchboard.Description, error) {
	err := p.PC.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer.SDP})
	if err == nil {
		err = p.add(false)
	}
	if err != nil {
		return switchboard.Description{}, err
	}
	answer, err := p.PC.CreateAnswer(nil)
	return p.local(answer, err)
}

func (p *Peer) Accept(answer switchboard.Description) error {
	return p.PC.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.SDP})
}

func (p *Peer) Candidate(candidate json.RawMessage) error {
	var init webrtc.ICECandidateInit
	if err := json.Unmarshal(candidate, &init); err != nil {
		return err
	}
	return p.PC.AddICECandidate(init)
}

func (p *Peer) Close() error { return p.PC.Close() }

func (p *Peer) add(calling bool) error {
	if p.isSetUp || p.setUp == nil {
		return nil
	}
	p.isSetUp = true
	return p.setUp(p.PC, calling)
}

// local waits for the candidates, so that the description contains them.
func (p *Peer) local(d webrtc.SessionDescription, err error) (switchboard.Description, error) {
	if err != nil {
		return switchboard.Description{}, err
	}
	gathered := webrtc.GatheringCompletePromise(p.PC)
	if err := p.PC.SetLocalDescription(d); err != nil {
		return switchboard.Description{}, err
	}
	<-gathered
	local := p.PC.LocalDescription()
	return switchboard.Description{Type: local.Type.String(), SDP: local.SDP}, nil
}
