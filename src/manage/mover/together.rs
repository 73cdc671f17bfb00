//! Several futures at the same time in one task, which may borrow what the task has.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Runs futures until all have ended, and gives what they came to, in their order. All are polled whenever one can go on:
/// for a few.
pub(super) async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_comes_to_its_own_and_waits_for_others() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let (mut send, mut receive) = (Some(send), Some(receive));
        let outputs = together((0..3).map(|n| {
            let (send, receive) = match n {
                0 => (None, receive.take()),
                1 => (send.take(), None),
                _ => (None, None),
            };
            async move {
                if let Some(send) = send {
                    send.send(10).expect("somebody waits");
                }
                match receive {
                    Some(receive) => receive.await.expect("somebody sends"),
                    None => n,
                }
            }
        }));
        assert_eq!(outputs.await, [10, 1, 2]);
        assert!(together([] as [std::future::Ready<u8>; 0]).await.is_empty());
    }
}
