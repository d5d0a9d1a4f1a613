//! Routing: from an HTTP request to a question for the rules, and from a verdict to an answer.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use kube::core::Status;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;
use crate::rules::{self, Request, Reviewed};

/// A review holds two objects, each of up to 3 MiB in the API server's limits.
const BODY_LIMIT: usize = 7 * 1024 * 1024;

#[derive(Clone)]
struct Context {
    memory: watch::Receiver<Memory>,
    shutdown: CancellationToken,
}

/// The webhook as a function of what it knows. From `shutdown` on it is not ready any more, and
/// still answers.
pub fn router(memory: watch::Receiver<Memory>, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/fence/{generation}", post(fence))
        .route("/readyz", get(readyz))
        .route("/livez", get(async || "ok"))
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Context { memory, shutdown })
}

async fn fence(
    State(context): State<Context>,
    generation: Result<Path<u64>, PathRejection>,
    body: Bytes,
) -> Response {
    let Ok(Path(generation)) = generation else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let request = match serde_json::from_slice::<AdmissionReview<Reviewed>>(&body) {
        Ok(review) => review.try_into(),
        Err(error) => {
            tracing::warn!(%error, "a review cannot be read");
            return error_response(
                StatusCode::BAD_REQUEST,
                &format!("pvmigrate: this is no AdmissionReview: {error}"),
            );
        }
    };
    let Ok(request): Result<Request, _> = request else {
        return error_response(
            StatusCode::BAD_REQUEST,
            "pvmigrate: an AdmissionReview without a request",
        );
    };
    let memory = context.memory.borrow();
    if let Err(unfit) = memory.check_generation(generation) {
        tracing::warn!(%unfit, "no verdict is given");
        return error_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("pvmigrate: {unfit}"),
        );
    }
    match rules::judge(&request, memory.fences()) {
        Ok(refusal) => Json(answer(&request, refusal).into_review()).into_response(),
        Err(unreadable) => {
            tracing::warn!(%unreadable, "no verdict is given");
            error_response(StatusCode::BAD_REQUEST, &format!("pvmigrate: {unreadable}"))
        }
    }
}

fn answer(request: &Request, refusal: Option<String>) -> AdmissionResponse {
    let resource = &request.resource.resource;
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let user = request.user_info.username.as_deref().unwrap_or_default();
    let response = AdmissionResponse::from(request);
    let Some(sentence) = refusal else {
        tracing::debug!(resource, namespace, name = request.name, user, "allowed");
        return response;
    };
    tracing::info!(
        resource,
        namespace,
        name = request.name,
        user,
        sentence,
        "refused"
    );
    let mut response = response.deny(&sentence);
    response.result =
        Status::failure(&sentence, "Forbidden").with_code(StatusCode::FORBIDDEN.as_u16());
    response
}

async fn readyz(State(context): State<Context>) -> Response {
    if context.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    match context.memory.borrow().check() {
        Ok(()) => "ok".into_response(),
        Err(unfit) => (StatusCode::SERVICE_UNAVAILABLE, unfit.to_string()).into_response(),
    }
}

/// An error that the API server passes on with its sentence: it reads a Status, and little else.
fn error_response(code: StatusCode, sentence: &str) -> Response {
    let mut status = Status::failure(sentence, code.canonical_reason().unwrap_or_default());
    status.code = code.as_u16();
    let mut body = serde_json::to_value(status).unwrap_or_default();
    body["kind"] = "Status".into();
    body["apiVersion"] = "v1".into();
    (code, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
