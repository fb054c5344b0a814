// Package nats is a client for services on a NATS event bus: a thin layer over nats.go that keeps
// upstream's types at the edges, takes its known traps away, and leaves the way to it open.
//
//	client, err := nats.NewClient(&nats.Config{URLs: []string{"nats://localhost:4222"}})
//	if err != nil {
//		return err
//	}
//	defer func() { _ = client.Close() }()
//
//	_, err = client.Subscribe(ctx, "events.>", func(msg *nats.Message) error {
//		log.Printf("%s: %s", msg.Subject, msg.Data)
//		return nil
//	})
//	if err != nil {
//		return err
//	}
//	return client.Publish(ctx, "events.user.created", []byte(`{"user_id":"123"}`))
//
// # Client and configuration
//
// [NewClient] connects and returns a [Client], or an error that says what to mend. The client
// reconnects by itself until [Client.Close], follows the servers that discovery names, and leaves one
// that shuts down before it is thrown out. [WithBackgroundConnect] does not wait for the first
// connection. A zero field of [Config] means its default, except that
// JetStream is disabled in a literal that does not set Config.JetStreamEnabled; [DefaultConfig] and
// [LoadConfig] enable it. LoadConfig reads a YAML file and the ISA_CLOUD_NATS_* variables,
// [Config.Validate] finds every mistake at once, and [EventClientFactory] does all that for a service.
// An [Option] sets what a file cannot say, such as [WithLogger], [WithTLSConfig] and [WithResolver].
//
// # Publishing and subscribing
//
// [Client.Publish], [Client.PublishMsg] and [Client.PublishJSON] send a message to those who listen at
// this moment, at most once: a nil error means that it is in the client's buffer. [Client.Flush]
// returns when the server has it.
//
// [Client.Subscribe] calls a [Handler] for every [Message] on a subject, which may have the wildcards
// * for one token and > for the rest; [Client.QueueSubscribe] shares the messages among the members
// of a queue group; [Client.Messages] is a sequence to range over. When Subscribe returns, the server
// knows of the [Subscription], or has denied it with [ErrPermission]. Subscriptions outlive
// reconnects. They end with [Subscription.Unsubscribe], [Subscription.Drain], their context or the
// client.
//
// A handler's error or panic is reported and never fatal. One message is handled at a time, in
// order; [WithConcurrency] changes that, and [WithPendingLimits] how many may wait.
//
// # Requests
//
// [Client.Request] returns the first answer. The errors tell what may be done next: after
// [ErrNoResponders] and [ErrNotConnected] nobody has handled the request, after [ErrTimeout] and
// [ErrConnectionLost] somebody may have. A service that refuses is a [ServiceError]. The other side is
// [Client.HandleRequests], whose callers are answered whatever a handler does, and [Client.AddService],
// which others find; [Message.Respond] and its kin answer by hand. [JSONRequest] and [RequestJSON] are
// typed, and [Client.RequestMany] gathers many answers.
//
// # JetStream
//
// [Client.CreateStream], [Client.GetStreamInfo], [Client.CreateConsumer] and their kin manage streams
// and consumers with upstream's configurations; [Client.EnsureStream] and [Client.EnsureConsumer] adapt what
// is there, and delete nothing by accident. A consumer with a name is durable. [Client.PublishToStream]
// returns when the message is stored, once. [Client.PublishAsync], [Client.PublishBatch] and
// [Client.PublishSeq] have many in flight, and [Client.PublishAtomic] stores all or none.
//
//	messages, err := client.PullMessages(ctx, "ORDERS", "order-processor", 100)
//	if err != nil {
//		return err
//	}
//	for _, msg := range messages {
//		if err := client.AckMessage(ctx, msg); err != nil {
//			return err
//		}
//	}
//
// [Client.PullMessages] waits for the first message and takes what is there. Each message needs a final
// acknowledgement, or the server delivers it again: [Message.Ack] or, confirmed, [Client.AckMessage];
// [Message.NakWithDelay] to have it again; [Message.Term] never to. [Message.InProgress] buys time.
//
// # Consuming
//
// [Client.Consume] calls a handler for every message of a consumer and does the rest: it acknowledges
// what succeeds, delivers again what fails, with growing pauses ([WithBackoff], [RetryAfter], [WithRetryStream]), keeps
// the server from delivering to others what is held here, and goes on over reconnects, elections and
// deleted consumers. [WithWorkers] handles several messages at once and [WithKey] those of different
// keys only. [JSON] makes a handler of a function that takes a decoded payload.
//
//	consumption, err := client.Consume(ctx, "ORDERS", "order-processor", handle, nats.WithWorkers(8))
//	if err != nil {
//		return err
//	}
//	defer func() { _ = consumption.Stop(context.WithoutCancel(ctx)) }()
//
// What fails for good ([Permanent], [WithMaxDeliver]) is a [DeadLetter] in a stream of its own, with the
// reason; [ReadDeadLetter] reads one and [Client.ReplayDeadLetters] publishes them again.
// [Consumption.Healthy], [Consumption.Lag] and [Consumption.Stats] tell how it goes, and
// [Consumption.Stop] ends it without loss.
//
// [Client.ReadStream] reads a stream in order, without a consumer, to its end or beyond; [Client.GetMessage] and
// [Client.GetLastMessages] get single messages.
//
// # Key-value and object stores
//
// [Client.CreateKeyValue], [Client.EnsureKeyValue] and [Client.GetKeyValue] return a [KeyValue]:
// upstream's interface with the errors of this package. A write whose error is nil is written once.
// [KeyValue.Update] returns a [ConflictError] when another writer was faster, and [KeyValue.Modify]
// begins again then.
//
// [KeyValue.Watch] and [KeyValue.Changes] follow keys over reconnects, restarts and elections, and
// [KeyWatcher.Stale] tells when they may not know everything. [KeyValue.All] and [KeyValue.Keys] range
// over the keys in one pass, [KeyValue.GetMany] reads some, and [KeyValue.Cached] keeps them in memory:
// a [KeyValueCache]. [GetJSON], [KeyValue.PutJSON] and [ChangesJSON] are for values that are JSON.
//
// [KeyValue.Lock] acquires a [Lock], a lease with a fencing token, and [KeyValue.Elect] runs a function on
// one process at a time. The comment of Lock says what a lease cannot promise.
//
// [Client.CreateObjectStore] and [Client.GetObjectStore] return an [ObjectStore] for content of any size.
// [ObjectStore.Get], [ObjectStore.GetBytes] and [ObjectStore.GetFile] check the digest:
// [ErrObjectCorrupt] comes in the place of wrong bytes. [ObjectStore.Put] replaces an object only when the
// new version is stored as a whole, over elections and restarts. Without a deadline in its context,
// Config.RequestTimeout bounds both from one chunk to the next. [ObjectStore.Sweep] removes what killed
// processes leave behind.
//
// # Discovery
//
// With Config.UseConsul the servers come from Consul, when the client is made and at every change; when
// that fails, Config.URLs is used, and [EventServersFallback] tells. A [Resolver] given to [WithResolver]
// stands in Consul's place; a [WatchingResolver] is followed as well. [ConsulResolver] documents how an
// instance becomes a URL.
//
// # Contexts
//
// Every call that can block takes a context. Without a deadline, Config.RequestTimeout bounds the
// call (5 s), and Config.DrainTimeout (30 s) [Client.Shutdown], Subscription.Drain and Consumption.Stop; but
// what asks JetStream, publishes apart, waits for the first connection of [WithBackgroundConnect] without
// such a bound. The context of a subscription, a Consumption or a watcher is its life, not the time of the
// call that makes it.
//
// # Concurrency
//
// A [Client], a [Subscription], a [Consumption], a [KeyValue], an [ObjectStore] and the methods of a [Message] are safe for
// concurrent use. Messages and configurations that the caller passes in are neither changed nor kept.
// A received message belongs to its handler, which may keep it. Handlers of one subscription run one
// after the other, those of different subscriptions beside each other. A slow handler delays its own
// subscription only; when more waits than the limits allow, messages are dropped, counted in
// [SubscriptionStats] and reported as [EventSlowConsumer].
//
// # Errors
//
// There is one sentinel for each condition that a caller can act on, from [ErrClosed] to [ErrConflict].
// Errors wrap both the sentinel and upstream's error, so that errors.Is holds for either, and their
// text names the operation and its subject, stream, bucket or key. What is wrong with the arguments
// is found before anything is sent: [ErrInvalidSubject], [ErrInvalidArgument], [ErrInvalidHeader],
// [ErrInvalidConfig]. [KindOf] sorts all errors, [IsRetryable] and [IsUncertain] tell whether to repeat a call.
//
// What no call can return goes to the logger and to the handler of [WithEventHandler], as an [Event]:
// disconnects, failed handlers, dropped messages, dead letters, publishes that the server denied.
// [Client.Health] tells how the client is, and [Client.HealthHandler] answers an orchestrator's probes.
//
// An [Interceptor] stands around every message that is sent and handled, and [Client.Stats] has totals that never fall;
// [WithOptions] and [WithStart] let a package add both to a client.
//
// # Closing
//
// [Client.Close] stops receiving, hands back what consumptions have fetched ahead, waits for the
// handlers of the messages already received, for asynchronous publishes and for the flush, and closes
// the connection. It takes Config.DrainTimeout at most; [Client.Shutdown] takes as long as its
// context. What was left behind is counted in a [ShutdownError], which is [ErrDrainTimeout],
// [ErrUnflushed] or both. Every call after it returns [ErrClosed].
//
//	var left *nats.ShutdownError
//	if err := client.Shutdown(ctx); errors.As(err, &left) {
//		log.Printf("%d messages were not handled", left.Messages)
//	}
//
// # Upstream
//
// [Client.Conn] and [Client.JetStream] return what lies beneath, for what this package does not cover.
// [WithNATSOptions] passes options of nats.go through.
//
// # Testing
//
// Package natstest, beside this one, runs real servers and clusters inside a test, stops and restarts
// them, and breaks connections on purpose.
package nats
