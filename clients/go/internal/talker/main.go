// Says numbers to somebody, and prints what it hears: talker ADDRESS,… NAME [WHOM COUNT]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	switchboard "git.example.org/switchboard/clients/go"
)

func main() {
	ctx := context.Background()
	session, err := switchboard.Open(ctx, strings.Split(os.Args[1], ","), os.Args[2], switchboard.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("online", session.ID())
	if len(os.Args) > 4 {
		go say(ctx, session)
	}
	for {
		message, err := session.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("heard", message.Type, message.Name, string(message.Body))
	}
}

func say(ctx context.Context, session *switchboard.Session) {
	count, _ := strconv.Atoi(os.Args[4])
	answers := make(chan error, count)
	for number := range count {
		sent, err := session.Post("message", os.Args[3], number)
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			_, err := sent(ctx)
			answers <- err
		}()
		time.Sleep(10 * time.Millisecond)
	}
	for range count {
		if err := <-answers; err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("answered", count, session.ID())
}
