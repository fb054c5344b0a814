package main

// A guarantee is what holds under a fault, and the tests that show it.
type guarantee struct {
	fault, promise string
	tests          []string
}

// features are the rows of docs/guarantees.md.
var features = []struct {
	name       string
	guarantees []guarantee
}{
	{"Core NATS", []guarantee{
		{"The connection is away", "publishes wait in the buffer, and are sent in order", []string{"TestPublishWhileDisconnected"}},
		{"It breaks", "what may be lost is told in bytes, and no less", []string{"TestOutageTellsTheBytesAtRisk"}},
		{"A server shuts down in lame duck mode", "a queue group loses nothing and gets nothing twice", []string{"TestLeaveLosesNothingOfAGroup"}},
		{"It breaks during a request", "the answer still comes after a quick reconnect", []string{"TestRequestSurvivesReconnect"}},
		{"Servers restart under load", "a request is answered, or its error tells whether it may have been handled", []string{"TestRequestsOverRestarts"}},
		{"A handler of requests fails, panics or answers too much", "its caller is told at once", []string{"TestRequestsAlwaysEnd"}},
		{"A subscription is denied", "the call says so", []string{"TestDeniedSubscriptionIsAnError"}},
		{"Handlers are too slow", "the drops that are reported add up to those that there were", []string{"TestReportedDropsAddUp"}},
		{"A handler panics or ends its goroutine", "one message is lost, and nothing else", []string{"TestHandlersThatEndTheirGoroutine"}},
	}},
	{"Publishing to streams", []guarantee{
		{"Acknowledgements are lost", "stored once", []string{"TestLostAcknowledgementsStoreNothingTwice"}},
		{"A right is withdrawn meanwhile", "a denial does not say that nothing is stored", []string{"TestDenialOfARepetitionIsUncertain"}},
		{"Leaders and servers are killed under load", "nil means stored once; what fails is told", []string{"TestPublishOverKilledLeaders"}},
		{"A message expects the last one to have an ID that it has not", "a stream with replicas survives it, which it does not by itself", []string{"TestNoPublisherEndsAStreamWithReplicas"}},
		{"The duplicate window has passed", "what is in doubt is not sent again", []string{"TestNothingIsSentAgainBeyondTheWindow"}},
		{"No stream stores the subject", "told within a second", []string{"TestNoStreamIsToldSoon"}},
		{"An acknowledgement of a batch is lost", "all or none, and once", []string{"TestPublishAtomicSurvivesALostAcknowledgement"}},
		{"The client is closed", "every future resolves, and is counted when it fails", []string{"TestCloseResolvesEveryFuture"}},
		{"An older configuration is ensured", "nothing is deleted", []string{"TestEnsureStreamNeverShrinks"}},
		{"Old and new releases start in any order", "the newer configuration stays", []string{"TestTheNewerConfigurationWins"}},
	}},
	{"Consuming", []guarantee{
		{"Leaders are killed, servers restart", "every message is handled", []string{"TestConsumeOverKilledLeaders"}},
		{"A server shuts down", "messages of one key stay in order", []string{"TestKeysStayInOrderOverShutdowns"}},
		{"The consumer or its stream is deleted", "it goes on when they are back", []string{"TestConsumeSurvivesDeletion"}},
		{"A handler takes longer than the ack wait", "delivered once", []string{"TestConsumeExtendsTheDeadline"}},
		{"Thousands of messages fail", "their retries are on time", []string{"TestManyRetriesAreOnTime"}},
		{"Many messages wait for their retries", "the others are handled meanwhile", []string{"TestRetriesDoNotStarveGoodTraffic"}},
		{"The dead letters cannot be stored", "the message stays", []string{"TestDeadLetterStreamDown"}},
		{"A dead letter is stored again after a crash", "there is one", []string{"TestDeadLetterIsStoredOnce"}},
		{"A message kills its workers", "it becomes a dead letter", []string{"TestDeadLetterOfAMessageThatKills"}},
		{"The process is stopped, and few deliveries are allowed", "that costs no delivery", []string{"TestGracefulEndsCostNoDelivery"}},
		{"A replay is stopped and begun again", "each is replayed once", []string{"TestReplayStoppedAndResumed"}},
		{"Lines break while a stream is read", "it is read as a whole, in order", []string{"TestReadStreamIsWholeOverBrokenConnections"}},
		{"A pull is given up", "no message is lost, and none has lost a delivery", []string{"TestPullsThatAreGivenUpLoseNothing"}},
	}},
	{"Key-value and locks", []guarantee{
		{"Servers restart", "a watcher misses no key's last value, and reports none twice", []string{"TestKeyValueWatchOverRestarts"}},
		{"Leaders are killed", "the same, within seconds", []string{"TestWatchOverKilledLeaders"}},
		{"A watcher cannot know", "it says that it is stale", []string{"TestKeyValueWatchTellsThatItIsStale"}},
		{"The bucket is made anew", "the new values, and a deletion for what is gone", []string{"TestKeyValueWatchOfARecreatedBucket"}},
		{"Many change one key at once", "no change is lost", []string{"TestModifyLosesNothing"}},
		{"Values expire", "a cache drops them", []string{"TestKeyValueCacheForgetsWhatExpires"}},
		{"Holders are killed, stopped, and cut off", "the server gives a lock to one at a time, and tokens grow", []string{"TestLockOverKillsPausesAndPartitions"}},
	}},
	{"Objects", []guarantee{
		{"Leaders change during uploads", "an object is whole, or not there", []string{"TestObjectsOverLeaderChanges"}},
		{"An upload is cancelled or fails", "nothing is left of it, and the old version stays", []string{"TestObjectPutCancelled", "TestObjectPutFails"}},
		{"Two write at once", "the later one wins, as a whole", []string{"TestObjectConcurrentWriters"}},
		{"The object is replaced while it is read", "never a mix", []string{"TestObjectDownloadStartsAnew", "TestObjectChangedWhileRead"}},
		{"Bytes are damaged", "`ErrObjectCorrupt`, however it is read", []string{"TestObjectCorruptReadExactly"}},
		{"Processes are killed during uploads", "`Sweep` removes what they left, and no more", []string{"TestObjectOrphansOfKilledProcesses", "TestObjectSweptUpload"}},
	}},
	{"Connection and end", []guarantee{
		{"Any state of the connection", "every call ends within its context", []string{"TestEveryCallInEveryState"}},
		{"Secrets are rotated", "used at the next connect, without a restart", []string{"TestAuthenticationRotates", "TestSecretsInKubernetesVolumes"}},
		{"Certificates are rotated", "used within `tls_reload`", []string{"TestTLSReload"}},
		{"A TLS failure at a reconnect", "told", []string{"TestTLSFailureOnReconnectIsTold"}},
		{"Servers that offer no TLS", "get no credentials", []string{"TestNoCredentialsWithoutTLS"}},
		{"A cluster is rolled", "no call fails", []string{"TestRollingRestart"}},
		{"Consul is away, or flaps", "the last known servers stay", []string{"TestConsulOutageAndFlappingKeepTheServers"}},
		{"The line is slow", "it is not taken for dead", []string{"TestSlowLineIsNotDead"}},
		{"The client is closed", "what was received is handled", []string{"TestCloseHandlesEverythingReceived"}},
		{"Its time is up", "the error counts what was left", []string{"TestShutdownSaysWhatItLeft"}},
		{"Whatever is printed", "shows no secret", []string{"TestNothingPrintsASecret"}},
		{"A user has the rights of [Permissions](permissions.md) and no more", "each capability works", []string{"TestPermissionsPage"}},
	}},
}
