// A complete reader of the policy table for a mail transfer agent, with nothing but Go's standard library: it shows
// what goes over the wire, for languages without an AWS SDK. Each call is one POST of JSON, signed with AWS Signature
// Version 4 (sign.go).
//
// As a program it answers questions from standard input, one JSON object a line, and reports at the end which policies
// it used:
//
//	$ POLICY_TABLE=... REQUEST_QUEUE_URL=... AWS_REGION=... AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... go run .
//	{"domain": "example.com", "mx": ["mail.example.com", "mx.evil.example"]}
//	{"domain":"example.com","action":"enforce","allowed":["mail.example.com"]}
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// A policy is read again after this long, so that a change is known within minutes.
	defaultCacheTime = 5 * time.Minute
	// A domain that is not in the table is asked for once in this time, however much mail there is for it.
	requestAgain = time.Hour
	maxDomains   = 100_000
	// SQS takes more bytes; `request` takes so many domains a message.
	usedPerMessage  = 1_000
	maxDomainLength = 244
)

// At least two labels: "localhost" has no policy.
var hostName = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// The last label of 192.0.2.1, which has no policy either.
var allDigits = regexp.MustCompile(`\.[0-9]+$`)

// attribute is a value as DynamoDB spells it. Numbers are strings.
type attribute struct {
	S    *string
	N    *string
	BOOL *bool
	L    []attribute
}

type item map[string]attribute

type policy struct {
	mode     string
	patterns []string
	validEnd time.Time
	readAt   time.Time
}

type reader struct {
	dynamodb, sqs client
	table, queue  string
	cacheTime     time.Duration
	now           func() time.Time
	cache         map[string]policy
	requested     map[string]time.Time
	used          map[string]bool
	outage        bool
}

// lookUp returns an action and, for enforce and testing, the patterns. The action is one of
//
//	enforce  deliver only to MX hosts that match a pattern, with a valid certificate (RFC 8461 section 5)
//	testing  deliver as ever, and report (RFC 8460)
//	none     no policy: deliver as ever
//	unknown  the table cannot be reached and nothing is known of the domain: defer, if you can
func (r *reader) lookUp(domain string) (string, []string) {
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	if len(domain) > maxDomainLength || !isHostName(domain) {
		return "none", nil
	}
	now := r.now()
	known, isKnown := r.cache[domain]
	isValid := isKnown && now.Before(known.validEnd)
	if !isValid || now.Sub(known.readAt) >= r.cacheTime || now.Before(known.readAt) {
		var answer struct{ Item item }
		err := r.dynamodb.call("DynamoDB_20120810.GetItem", map[string]any{
			"TableName": r.table,
			"Key":       map[string]any{"Domain": map[string]string{"S": domain}},
		}, &answer)
		r.sayOutage(err)
		if err == nil {
			known, isValid = decode(answer.Item, now)
			if !isValid {
				delete(r.cache, domain)
				r.request(domain, now)
				return "none", nil
			}
			makeRoom(r.cache)
			r.cache[domain] = known
		} else if !isValid {
			return "unknown", nil
		}
		// Denied or expired credentials are an outage too. What is known and valid goes on being used.
	}
	makeRoom(r.used)
	r.used[domain] = true
	return known.mode, known.patterns
}

// request has the domain looked at. A relay with a resolver at hand asks for the TXT record first.
func (r *reader) request(domain string, now time.Time) {
	if at, ok := r.requested[domain]; ok && now.Sub(at) < requestAgain {
		return
	}
	if r.send(map[string]any{"domain": domain}) {
		makeRoom(r.requested)
		r.requested[domain] = now
	}
}

// reportUse is called once a day. A policy that nobody reports for 180 days is pruned.
func (r *reader) reportUse() {
	for len(r.used) > 0 {
		var domains []string
		for domain := range r.used {
			if len(domains) < usedPerMessage {
				domains = append(domains, domain)
			}
		}
		if !r.send(map[string]any{"used": domains}) {
			return
		}
		for _, domain := range domains {
			delete(r.used, domain)
		}
	}
}

func (r *reader) send(message map[string]any) bool {
	body, err := json.Marshal(message)
	if err == nil {
		err = r.sqs.call("AmazonSQS.SendMessage", map[string]any{"QueueUrl": r.queue, "MessageBody": string(body)}, nil)
	}
	if err != nil {
		log.Printf("request queue: %v", err)
	}
	return err == nil
}

// sayOutage says so once when it begins and once when it ends, not for every message.
func (r *reader) sayOutage(err error) {
	if err != nil && !r.outage {
		log.Printf("policy table cannot be read, last known policies are used: %v", err)
	}
	if err == nil && r.outage {
		log.Print("policy table can be read again")
	}
	r.outage = err != nil
}

// decode says whether an item can be used now. Also items written by hand, or by a version to come, must do no harm.
func decode(it item, now time.Time) (policy, bool) {
	p := policy{readAt: now}
	if it["ValidEnd"].N == nil || it["LastUpdate"].N == nil {
		return p, false
	}
	milliseconds, err := strconv.ParseFloat(*it["ValidEnd"].N, 64)
	if err != nil || milliseconds > 1e15 {
		return p, false
	}
	p.validEnd = time.UnixMilli(int64(milliseconds))
	if !now.Before(p.validEnd) {
		return p, false
	}
	if b := it["Backoff"].BOOL; b != nil && *b {
		p.mode = "none"
		return p, true
	}
	if it["Mode"].S == nil {
		return p, false
	}
	p.mode = *it["Mode"].S
	if p.mode == "none" {
		return p, true
	}
	for _, pattern := range it["MX"].L {
		if pattern.S == nil || !isHostName(strings.TrimPrefix(*pattern.S, "*.")) {
			return p, false
		}
		p.patterns = append(p.patterns, *pattern.S)
	}
	return p, (p.mode == "enforce" || p.mode == "testing") && len(p.patterns) > 0
}

func isHostName(name string) bool {
	return hostName.MatchString(name) && !allDigits.MatchString(name)
}

// matches is RFC 8461 section 4.1: "*." stands for exactly one left-most label.
func matches(pattern, mx string) bool {
	mx = strings.TrimSuffix(strings.ToLower(mx), ".")
	if strings.HasPrefix(pattern, "*.") {
		_, parent, _ := strings.Cut(mx, ".")
		return parent == pattern[2:]
	}
	return mx == pattern
}

// makeRoom forgets any one entry of a map that is full. What is forgotten is read again.
func makeRoom[V any](entries map[string]V) {
	if len(entries) < maxDomains {
		return
	}
	for key := range entries {
		delete(entries, key)
		return
	}
}

func main() {
	log.SetFlags(0)
	region := os.Getenv("AWS_REGION")
	cacheTime := defaultCacheTime
	if seconds, err := strconv.ParseFloat(os.Getenv("CACHE_SECONDS"), 64); err == nil {
		cacheTime = time.Duration(seconds * float64(time.Second))
	}
	queue := os.Getenv("REQUEST_QUEUE_URL")
	queueURL, err := url.Parse(queue)
	if err != nil || queueURL.Host == "" || os.Getenv("POLICY_TABLE") == "" || region == "" {
		log.Fatal("POLICY_TABLE, REQUEST_QUEUE_URL and AWS_REGION should be those of the stack's outputs")
	}
	dynamodb := os.Getenv("AWS_ENDPOINT_URL_DYNAMODB")
	if dynamodb == "" {
		dynamodb = fmt.Sprintf("https://dynamodb.%s.amazonaws.com", region)
	}
	r := &reader{
		dynamodb: newClient(dynamodb, region, "dynamodb"),
		// The queue's URL has the endpoint of its region.
		sqs:       newClient(queueURL.Scheme+"://"+queueURL.Host, region, "sqs"),
		table:     os.Getenv("POLICY_TABLE"),
		queue:     queue,
		cacheTime: cacheTime,
		now:       time.Now,
		cache:     map[string]policy{},
		requested: map[string]time.Time{},
		used:      map[string]bool{},
	}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var question struct {
			Domain string
			MX     []string
		}
		if err := json.Unmarshal(input.Bytes(), &question); err != nil {
			log.Fatalf("not a question: %v", err)
		}
		action, patterns := r.lookUp(question.Domain)
		allowed := []string{}
		for _, mx := range question.MX {
			for _, pattern := range patterns {
				if matches(pattern, mx) {
					allowed = append(allowed, mx)
					break
				}
			}
		}
		answer, _ := json.Marshal(struct {
			Domain  string   `json:"domain"`
			Action  string   `json:"action"`
			Allowed []string `json:"allowed"`
		}{question.Domain, action, allowed})
		fmt.Println(string(answer))
	}
	r.reportUse()
}
