//! How long a half-open breaker waits for its probes.

use super::*;

/// A call timeout longer than the probe timeout applies to probes too, so a slow but working dependency closes the
/// circuit.
#[tokio::test(start_paused = true)]
async fn a_slow_probe_within_its_own_timeout_closes() {
    for config in [config(), BreakerConfig::opossum()] {
        let config = config.probe_timeout(Duration::from_secs(1));
        let breaker = CircuitBreaker::new(config).unwrap().with_timeout(Duration::from_secs(30));
        breaker.import(&half_open());
        let slow = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            succeed().await
        };
        breaker.call(slow).await.unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn every_probe_has_the_longer_of_both_timeouts() {
    for config in [BreakerConfig::default(), BreakerConfig::opossum()] {
        for permitted in [1, 3] {
            let breaker = CircuitBreaker::new(config.clone().permitted_probes(permitted)).unwrap();
            let breaker = breaker.with_timeout(20 * SECOND);
            breaker.import(&half_open());
            for _ in 0..permitted {
                breaker.call(takes(16 * SECOND)).await.unwrap();
            }
            assert_eq!(breaker.state(), State::Closed);
            breaker.import(&half_open());
            let permits: Vec<_> = (0..permitted).map(|_| breaker.try_acquire().unwrap()).collect();
            tokio::time::advance(20 * SECOND).await;
            assert_eq!(breaker.state(), State::HalfOpen);
            permits.into_iter().for_each(Permit::success);
            assert_eq!(breaker.state(), State::Closed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_not_recorded_within_the_timeout_opens_the_circuit() {
    let breaker = CircuitBreaker::new(config()).unwrap().with_timeout(20 * SECOND);
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    tokio::time::advance(21 * SECOND).await;
    assert_eq!(breaker.state(), State::Open);
    permit.success();
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn after_a_dropped_permit_another_call_may_probe() {
    let breaker = breaker();
    breaker.import(&half_open());
    let permit = breaker.try_acquire().unwrap();
    assert_eq!(breaker.try_acquire().unwrap_err().state, State::HalfOpen);
    drop(permit);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}
