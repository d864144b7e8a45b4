// A robot that takes calls, and echoes what comes by a data channel: go run . ws://localhost:9090 robot [whom]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/pion/webrtc/v4"

	switchboard "git.example.org/switchboard/clients/go"
	"git.example.org/switchboard/clients/go/peer"
)

func main() {
	ctx := context.Background()
	if len(os.Args) < 3 {
		log.Fatal("go run . ADDRESS,… NAME [WHOM]")
	}
	session, err := switchboard.Open(ctx, strings.Split(os.Args[1], ","), os.Args[2], switchboard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	echo := func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) {
			_ = channel.SendText(fmt.Sprintf("%s heard %s", session.Name(), message.Data))
		})
	}
	setUp := func(pc *webrtc.PeerConnection, calling bool) error {
		pc.OnDataChannel(echo)
		if !calling {
			return nil
		}
		channel, err := pc.CreateDataChannel("chat", nil)
		if err == nil {
			echo(channel)
		}
		return err
	}
	calls := &switchboard.Calls{
		Session: session,
		NewPeer: func(call *switchboard.Call) (switchboard.Peer, error) {
			return peer.New(call, webrtc.Configuration{ICEServers: peer.ICEServers(session)}, setUp)
		},
		Ringing: func(call *switchboard.Call) {
			fmt.Println(call.Name, "calls")
			_ = call.Accept()
		},
		Ended: func(call *switchboard.Call) { fmt.Println(call.Name, "is gone:", call.Reason()) },
	}
	fmt.Println("I am", session.Name())
	if len(os.Args) > 3 {
		if _, err := calls.Call(os.Args[3]); err != nil {
			log.Fatal(err)
		}
	}
	for {
		message, err := session.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		calls.Hear(message)
	}
}
